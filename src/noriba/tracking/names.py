"""Names for runs and models that nobody named, as MLflow gives: an adjective, a noun, a number."""

from __future__ import annotations

from random import Random

_ADJECTIVES = (
    "able amber ample bold brave bright brisk calm careful cheerful clean clear clever crisp daring eager early "
    "fair famous fine fond fresh gentle glad golden grand happy honest humble keen kind lively loyal lucky mellow "
    "merry mild modest neat nimble noble open patient placid polite proud quick quiet rapid ready sharp shiny silent "
    "smooth sound steady stoic sunny swift tidy upbeat useful valiant vivid warm wise witty young"
)
_NOUNS = (
    "ant badger bear bee bird boar bream carp cat chimp cod colt crab crane crow cub deer doe dog dolphin dove duck "
    "eel elk fawn finch fish fly fowl fox frog gnat gnu goat goose grouse grub gull hare hawk hen hog horse hound "
    "jay kit koi lamb lark loon lynx mare mink mole moose moth mouse mule newt owl ox panda perch pig pug quail ram "
    "rat ray robin roo seal shad sheep shrew skunk slug snail snipe sow squid stag stork swan tern toad trout vole "
    "wasp whale wolf wren yak zebra"
)


def random_name(random: Random) -> str:
    """Such as ``quiet-heron-214``."""
    return f"{random.choice(_ADJECTIVES.split())}-{random.choice(_NOUNS.split())}-{random.randrange(1000)}"
