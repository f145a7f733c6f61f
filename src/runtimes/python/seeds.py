"""Seeds random generators anew in each child: a generator from before the fork would give all children one sequence."""
import gc
import sys


def seeds():
    """A function for each generator that exists now. The function seeds the generator from the system's randomness."""
    random, numpy = sys.modules.get("random"), sys.modules.get("numpy.random")
    kinds = []
    if random:
        kinds.append((random.Random, lambda found: found.seed))
    if numpy:
        kinds += [
            (numpy.RandomState, seed_of_state),
            (numpy.Generator, lambda found: seed_of_bits(found.bit_generator)),
            (numpy.BitGenerator, seed_of_bits),
        ]
    if not kinds:
        return []
    # The type is asked: a question to the object itself may run code of the object's.
    return [seed(found) for found in gc.get_objects() for kind, seed in kinds if issubclass(type(found), kind)]


def seed_of_bits(bits):
    def seed():
        bits.state = type(bits)().state

    return seed


def seed_of_state(state):
    def seed():
        try:
            # This forgets a normal number that is kept for the next call, too.
            state.seed()
        except TypeError:
            seed_of_bits(state._bit_generator)()

    return seed
