"""Somebody else who writes the replicas is named; who keeps undoing orders is left alone."""

from planner.decision.contention import ContentionMemory, note_order, note_targets
from planner.model import Fleet, PoolFleet
from tests.builders import START_S, service

SERVICE = service()
ORDERED = {"decode": 6}


def fleet(replicas, *, changed_by=None, uid="a"):
    return Fleet(
        START_S,
        {
            "prefill": PoolFleet(1, uid="p"),
            "decode": PoolFleet(replicas, uid=uid, changed_by=changed_by),
        },
    )


def seen(memory, found, now_s=START_S):
    return note_targets(SERVICE, memory, found, now_s)


def test_an_order_that_stands_is_no_news():
    memory = note_order(ContentionMemory(), ORDERED)
    memory, renewed, reasons, hold = seen(memory, fleet(6, changed_by="kubectl"))
    assert (renewed, reasons, hold) == (frozenset(), (), None)
    assert memory.ordered == ORDERED


def test_who_undid_an_order_is_named_once():
    memory = note_order(ContentionMemory(), ORDERED)
    memory, _, (reason,), hold = seen(memory, fleet(4, changed_by="argocd-controller"))
    assert reason.code == "ChangedByOther"
    assert "argocd-controller set 4 pods, 6 had been ordered" in reason.message
    assert hold is None
    assert seen(memory, fleet(4, changed_by="argocd-controller"))[2] == ()


def test_an_order_undone_much_later_counts_too():
    memory = note_order(ContentionMemory(), ORDERED)
    for _ in range(5):
        memory, *_ = seen(memory, fleet(6))
    assert seen(memory, fleet(4, changed_by="argocd-controller"))[2]


def test_a_refused_order_is_nobodys_change():
    assert seen(ContentionMemory(), fleet(4, changed_by="kubectl"))[2] == ()


def test_three_reverts_by_one_writer_stop_the_writing_for_an_hour():
    memory = ContentionMemory()
    for k in range(3):
        at_s = START_S + 60.0 * k
        memory, _, _, hold = seen(note_order(memory, ORDERED), fleet(4, changed_by="hpa"), at_s)
        assert (hold is not None) == (k == 2)
    assert hold.reason.code == "TargetContended"
    assert "hpa undid 3 orders" in hold.reason.message
    assert "mode: Recommend" in hold.reason.message
    assert seen(memory, fleet(4, changed_by="hpa"), at_s + 60.0)[3] is not None
    assert seen(memory, fleet(4, changed_by="hpa"), at_s + 3601.0)[3] is None


def test_different_writers_do_not_add_up():
    memory = ContentionMemory()
    for who in ("anna", "bob", "carol", "dave"):
        memory, _, _, hold = seen(note_order(memory, ORDERED), fleet(4, changed_by=who))
        assert hold is None


def test_a_new_object_of_the_same_name_starts_over():
    memory, *_ = seen(ContentionMemory(), fleet(6))
    memory, renewed, (reason,), hold = seen(note_order(memory, ORDERED), fleet(2, uid="b"))
    assert (renewed, reason.code, hold) == (frozenset({"decode"}), "TargetReplaced", None)
    assert seen(memory, fleet(2, uid="b"))[1:] == (frozenset(), (), None)
