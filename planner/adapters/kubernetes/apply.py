"""Server-side apply of a ConfigMap: created or changed in one call, other writers respected."""

from typing import Final

from planner.adapters.kubernetes.api import FIELD_MANAGER, KubernetesApi
from planner.adapters.kubernetes.faults import CONFIG_MAPS, Call, ForbiddenError
from planner.adapters.kubernetes.values import Json
from planner.errors import ConflictError

_APPLY: Final = "application/apply-patch+yaml"  # JSON is YAML


class ApplyingApi(KubernetesApi):
    """The API client, with the one verb that only `profile apply` needs."""

    def apply(self, body: Json, *, dry_run: bool, force: bool) -> Json:
        """Create or change a ConfigMap so that it has these fields, and return it.

        Raises
        ------
        ForbiddenError
            If the account may not; the verb is the one that is missing.
        ConflictError
            If another manager owns a field that would change.
        """
        meta = body["metadata"]
        place = (CONFIG_MAPS, meta["namespace"], meta["name"])
        query = {"fieldManager": FIELD_MANAGER}
        query |= {"dryRun": "All"} if dry_run else {}
        query |= {"force": "true"} if force else {}
        try:
            return self._ask("PATCH", Call("patch", *place), query, body, _APPLY)
        except ForbiddenError as error:
            # Applying creates what is not there: the server then names another verb.
            if " cannot create " not in str(error):
                raise
            raise ForbiddenError(
                f"may not {Call('create', *place)}: it is not there yet; let a Role grant verbs: "
                "[create, patch], resources: [configmaps], apiGroups: ['']"
            ) from error
        except ConflictError as error:
            raise ConflictError(f"{error}; --force takes the fields over") from error
