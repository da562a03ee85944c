"""A data set of the user's own, named by its dotted path in the tests of evaluation."""

from score_sde import data


class FewDigits(data.Digits):
    """The digits with 7 test images, a number that nothing divides."""

    def source(self, split):
        records = super().source(split)
        return [records[i] for i in range(7 if split == "test" else 32)]
