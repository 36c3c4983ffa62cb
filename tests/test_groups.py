"""What a caller sees of an exception from the depth of nested nurseries."""

from __future__ import annotations

import os
import traceback

import pytest
import trio

from trio_gateway.groups import sole_errors


async def raise_in(depth: int, error: BaseException) -> None:
    if not depth:
        raise error
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raise_in, depth - 1, error)


async def test_a_sole_error_comes_out_bare_however_deep_it_was() -> None:
    error = OSError("address in use")
    with pytest.raises(OSError, match="address in use") as raised, sole_errors():
        await raise_in(5, error)
    assert raised.value is error
    assert "ExceptionGroup" not in "".join(traceback.format_exception(error))


async def test_its_own_context_stays() -> None:
    async def fail() -> None:
        try:
            os.environ["NO SUCH VARIABLE"]
        except KeyError:
            raise ValueError("then")  # noqa: B904  the implicit context is the point

    with pytest.raises(ValueError, match="then") as raised, sole_errors():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
    assert isinstance(raised.value.__context__, KeyError)


async def test_several_errors_stay_a_group() -> None:
    first, second = OSError("one"), OSError("two")

    async def fail_twice() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raise_in, 2, first)
            nursery.start_soon(raise_in, 1, second)

    with pytest.raises(ExceptionGroup) as raised, sole_errors():
        await fail_twice()
    assert raised.group_contains(OSError, match="one")
    assert raised.group_contains(OSError, match="two")


async def test_a_group_of_several_inside_groups_of_one_is_what_comes_out() -> None:
    inner = ExceptionGroup("inner", [OSError("one"), OSError("two")])
    with pytest.raises(ExceptionGroup) as raised, sole_errors():
        raise ExceptionGroup("outer", [inner])
    assert raised.value is inner


def test_what_is_no_group_passes() -> None:
    with pytest.raises(KeyError), sole_errors():
        raise KeyError
    with sole_errors():
        pass


async def test_a_cancellation_is_still_one() -> None:
    with trio.CancelScope() as scope:
        with sole_errors():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                scope.cancel()
        pytest.fail("it was swallowed")
    assert scope.cancelled_caught
