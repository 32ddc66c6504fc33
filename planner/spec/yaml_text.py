"""YAML as Kubernetes people mean it: a key given twice is a fault and `Off` is a word. Pure."""

import re
from collections import Counter
from typing import Any

import yaml

_BOOL = "tag:yaml.org,2002:bool"
_DATE = "tag:yaml.org,2002:timestamp"
_MERGE = "tag:yaml.org,2002:merge"


class YamlError(ValueError):
    """The text is no YAML; the message is one line with line and column."""


class _Loader(yaml.SafeLoader):
    """The safe loader with the words of YAML 1.2: `Off` is not False and a date is a string."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        """Return the mapping if no key is given twice; PyYAML would take the last in silence.

        Raises
        ------
        ConstructorError
            If a key is given twice.
        """
        keys = [key for key, _ in node.value if key.tag != _MERGE]
        counts = Counter(key.value for key in keys if isinstance(key, yaml.ScalarNode))
        for key in keys:
            if isinstance(key, yaml.ScalarNode) and counts[key.value] > 1:
                problem = f"key {key.value!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag not in {_BOOL, _DATE}]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF")


def read_documents(text: str) -> list[Any]:
    """Return the documents of a YAML text, empty ones left out.

    Raises
    ------
    YamlError
        If the text is no YAML.
    """
    try:
        documents = list(yaml.load_all(text, _Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise YamlError(f"{place}{error.problem or 'no YAML'}: correct the YAML there") from error
    except yaml.YAMLError as error:
        raise YamlError(" ".join(str(error).split())) from error
    except (ValueError, LookupError, AttributeError) as error:
        # PyYAML stumbles over `!!int x`, `!!bool x`, `!!timestamp x` and their like.
        raise YamlError("a value does not fit its !! tag: leave the tag out") from error
    except RecursionError as error:
        raise YamlError("nested too deeply: write a plain PDAutoscaler") from error
    return [document for document in documents if document is not None]
