"""The tree of HyperNodes: members, ancestors, what is wrong with it, and how fast it is built."""

from dataclasses import replace

import pytest

from planner.inventory import HyperNode, Inventory, Member, Node, Operator, Requirement
from planner.topology.tree import ROOT, build_tree, is_same_network

SWITCH = "topology.kubernetes.io/switch"


def child(name):
    return Member(is_hypernode=True, exact=name)


def exactly(name):
    return Member(is_hypernode=False, exact=name)


def pattern(text):
    return Member(is_hypernode=False, pattern=text)


def labelled(*requirements):
    return Member(is_hypernode=False, labels=requirements)


def having(key, *values):
    return Requirement(key, Operator.IN, values)


def hypernode(name, tier, *members):
    return HyperNode(name, tier, members)


def scenario():
    """Return the seven switches and their 256 nodes."""
    leaves = (("ib-switch0", "ib"), ("ib-switch1", "ib"),
              ("eth-switch2", "ethernet"), ("eth-switch3", "ethernet"))  # fmt: skip
    nodes = tuple(
        Node(f"node-{i}", {SWITCH: leaves[i // 64][0], f"{SWITCH}-type": leaves[i // 64][1]})
        for i in range(256)
    )
    switches = (
        *(hypernode(name, 1, labelled(having(SWITCH, name))) for name, _ in leaves),
        hypernode("ib-switch4", 2, child("ib-switch0"), child("ib-switch1")),
        hypernode("eth-switch5", 2, child("eth-switch2"), child("eth-switch3")),
        hypernode("eth-switch6", 3, child("ib-switch4"), child("eth-switch5")),
    )
    return switches, nodes


def nodes(*names, **labels):
    return tuple(Node(name, labels) for name in names)


@pytest.fixture(scope="module")
def tree():
    return build_tree(*scenario())


def test_the_scenario_has_no_faults_and_a_root_above_its_core(tree):
    assert tree.faults == ()
    assert tree.domains[ROOT].tier == 4
    assert tree.domains[ROOT].children == ("eth-switch6",)
    sizes = {name: len(domain.nodes) for name, domain in tree.domains.items()}
    assert sizes == {
        "ib-switch0": 64, "ib-switch1": 64, "eth-switch2": 64, "eth-switch3": 64,
        "ib-switch4": 128, "eth-switch5": 128, "eth-switch6": 256, ROOT: 256,
    }  # fmt: skip
    assert tree.ancestors("ib-switch1") == ("ib-switch1", "ib-switch4", "eth-switch6", ROOT)


@pytest.mark.parametrize(
    ("places", "domain"),
    [
        pytest.param((0,), "ib-switch0", id="one node"),
        pytest.param((0, 63), "ib-switch0", id="one leaf"),
        pytest.param((0, 64), "ib-switch4", id="two leaves"),
        pytest.param((0, 200), "eth-switch6", id="two networks"),
        pytest.param((0, 999), "ib-switch0", id="a node that is gone says nothing"),
        pytest.param((999,), None, id="no node that is known"),
        pytest.param((), None, id="no node"),
    ],
)
def test_lowest_common(tree, places, domain):
    assert tree.lowest_common(f"node-{i}" for i in places) == domain


@pytest.mark.parametrize(
    ("domain", "tier", "highest"),
    [
        pytest.param("ib-switch0", 1, "ib-switch0", id="itself"),
        pytest.param("ib-switch0", 2, "ib-switch4", id="its parent"),
        pytest.param("ib-switch0", 9, ROOT, id="everything"),
        pytest.param("ib-switch4", 1, None, id="none is low enough"),
    ],
)
def test_highest_within(tree, domain, tier, highest):
    assert tree.highest_within(domain, tier) == highest


def test_widest_within(tree):
    assert tree.widest_within(2) == ("eth-switch5", "ib-switch4")
    assert tree.widest_within(0) == ()
    assert tree.meeting("ib-switch0", "ib-switch1") == "ib-switch4"
    assert tree.meeting("ib-switch4", "ib-switch0") == "ib-switch4"


def test_without_hypernodes_the_root_holds_everything():
    tree = build_tree((), nodes("a", "b"))
    assert tree.domains[ROOT].nodes == {"a", "b"}
    assert tree.domains[ROOT].tier == 1
    assert tree.lowest_common(["a", "b"]) == ROOT


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        pytest.param(exactly("gpu-1"), {"gpu-1"}, id="exact"),
        pytest.param(pattern("gpu-1"), {"gpu-1", "gpu-10"}, id="searched, not matched whole"),
        pytest.param(pattern("^gpu-1$"), {"gpu-1"}, id="anchored"),
        pytest.param(pattern(r"-[[:digit:]]{2}\z"), {"gpu-10"}, id="Go's own syntax"),
        pytest.param(pattern("[[a-z]pu-1$"), {"gpu-1"}, id="a set that Python warns of"),
        pytest.param(labelled(having("rack", "r1")), {"gpu-1"}, id="label in"),
        pytest.param(labelled(Requirement("rack", Operator.EXISTS)), {"gpu-1", "gpu-2"},
                     id="label exists"),
        pytest.param(labelled(Requirement("rack", Operator.NOT_IN, ("r1",))),
                     {"gpu-2", "gpu-10"}, id="not in, and without the label"),
        pytest.param(labelled(Requirement("rack", Operator.DOES_NOT_EXIST)), {"gpu-10"},
                     id="without the label"),
        pytest.param(labelled(having("rack", "r1", "r2"), having("rack", "r2")), {"gpu-2"},
                     id="all requirements"),
    ],
)  # fmt: skip
def test_members(member, expected):
    there = (Node("gpu-1", {"rack": "r1"}), Node("gpu-2", {"rack": "r2"}), Node("gpu-10"))
    tree = build_tree([hypernode("leaf", 1, member)], there)
    assert tree.domains["leaf"].nodes == expected
    assert tree.faults == ()


RING = [hypernode("a", 1, child("c")), hypernode("b", 2, child("a")), hypernode("c", 3, child("b"))]
PARENTS = [
    hypernode("leaf", 1, exactly("n1")),
    hypernode("one", 2, child("leaf")),
    hypernode("two", 2, child("leaf")),
]


@pytest.mark.parametrize(
    ("hypernodes", "code", "at", "says", "is_broken"),
    [
        pytest.param(RING, "Cycle", "a", "a → b → c → a", True, id="cycle"),
        pytest.param([hypernode("a", 1, child("a"))], "Cycle", "a", "a → a", True, id="itself"),
        pytest.param(PARENTS, "TwoParents", "leaf", "both one and two", True, id="two parents"),
        pytest.param([hypernode("a", 1, exactly("gone"))], "MissingMember", "a", "node gone",
                     False, id="no such node"),
        pytest.param([hypernode("a", 2, child("gone"))], "MissingMember", "a", "HyperNode gone",
                     False, id="no such HyperNode"),
        pytest.param([hypernode("a", 1, pattern("^x"))], "MissingMember", "a", "finds no node",
                     False, id="pattern finds none"),
        pytest.param([hypernode("a", 1, labelled())], "MissingMember", "a", "finds no node",
                     False, id="empty labelMatch selects nothing"),
        pytest.param([hypernode("a", 1, pattern("n("))], "BadPattern", "a", "'n('", False,
                     id="bad pattern"),
        pytest.param([hypernode("a", 1, pattern(r"\p{Greek}"))], "BadPattern", "a", "bad escape",
                     False, id="only Go knows it"),
        pytest.param([hypernode("a", 1, pattern("n{99999999999}"))], "BadPattern", "a", "too",
                     False, id="absurd repetition"),
        pytest.param([hypernode("a", 2, Member(is_hypernode=True, pattern="b")),
                      hypernode("b", 1, exactly("n1"))], "IgnoredMember", "a", "exactMatch", False,
                     id="HyperNode by pattern"),
        pytest.param([hypernode("a", 2, exactly("n1")), hypernode("b", 2, child("a"))],
                     "TierOrder", "a", "its parent b 2", False, id="tier not below its parent's"),
        pytest.param([hypernode("a", 1, exactly("n1")), hypernode("b", 1, pattern("n"))],
                     "SharedNode", "b", "a and b both hold n1", False, id="shared node"),
    ],
)  # fmt: skip
def test_faults_are_told_and_never_raised(hypernodes, code, at, says, is_broken):
    tree = build_tree(hypernodes, nodes("n1", "n2"))
    (fault,) = tree.faults
    assert (fault.code, fault.hypernode) == (code, at)
    assert says in fault.message
    assert fault.mend
    assert tree.is_broken is is_broken
    assert tree.domains[ROOT].nodes == {"n1", "n2"}


def test_a_parent_may_name_the_nodes_of_its_child_too():
    there = [hypernode("a", 1, exactly("n1")), hypernode("b", 2, child("a"), pattern("n"))]
    tree = build_tree(there, nodes("n1", "n2"))
    assert tree.faults == ()
    assert tree.by_node == {"n1": ("a", "b", ROOT), "n2": ("b", ROOT)}


def test_a_node_may_be_named_two_levels_up():
    there = [
        hypernode("a", 1, exactly("n1")),
        hypernode("b", 2, child("a")),
        hypernode("c", 3, child("b"), exactly("n1")),
    ]
    assert build_tree(there, nodes("n1")).faults == ()


def test_the_tree_does_not_depend_on_the_order_of_hypernodes():
    switches, there = scenario()
    assert build_tree(switches[::-1], there) == build_tree(switches, there)
    assert build_tree(PARENTS[::-1], there).faults == build_tree(PARENTS, there).faults


def test_a_tree_holds_while_hypernodes_and_labels_stay():
    switches, there = scenario()
    before = Inventory(0.0, there, switches)
    busier = tuple(replace(node, requested={"cpu": 1.0}, is_ready=False) for node in there)
    moved = (replace(there[0], labels={SWITCH: "ib-switch1"}), *there[1:])
    assert is_same_network(before, Inventory(60.0, busier, switches))
    assert not is_same_network(before, Inventory(60.0, moved, switches))
    assert not is_same_network(before, Inventory(60.0, there[1:], switches))
    assert not is_same_network(before, Inventory(60.0, there, switches[1:]))
