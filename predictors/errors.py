"""The one error of the forecasting package: bad input, or a predictor that cannot do its work."""


class PredictorError(ValueError):
    """A forecast cannot be made: says what, where, the legal range and how to mend it."""
