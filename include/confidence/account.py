"""The account of a scan: where every row that the source listed, and every live row of the copy, has ended up."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Account:
    """The rows of one table in one scan. Two sums have to come out:

    - source: `listed` = `repeats` + `refused` + `compared`
    - copy: `live` = `equal` + `differing` + `surplus` + `young` + `unproven` + `out_of_scope`

    Each figure is counted by itself, none as the rest of a sum. `repeats`: rows whose key was listed before. `refused`:
    rows that can't be stored. `surplus`: live rows proven to be gone at the source. `young`: changed after the last
    sync, which the next one brings. `out_of_scope`: left out by the scan's declaration or params. `missing`: rows of
    the source that the copy lacks, refused ones included; `missing_unproven` of them could not be proven. `unseen`:
    rows that the source's list says that it has, and that nothing has shown.
    """

    listed: int = 0
    repeats: int = 0
    refused: int = 0
    compared: int = 0
    live: int = 0
    equal: int = 0
    differing: int = 0
    surplus: int = 0
    young: int = 0
    unproven: int = 0
    out_of_scope: int = 0
    missing: int = 0
    missing_unproven: int = 0
    unseen: int = 0

    @property
    def rows(self) -> int:
        """The rows in scope on either side."""
        return self.live - self.out_of_scope + self.missing + self.unseen

    @property
    def looked_at(self) -> int:
        """The live rows of the copy that the scan compared with the source, and by which it measures shares."""
        return self.live - self.out_of_scope - self.unproven - self.young

    @property
    def not_proven(self) -> int:
        """The rows on either side of which the scan can't tell whether source and copy agree."""
        return self.unproven + self.missing_unproven + self.unseen

    @property
    def proven(self) -> int:
        return self.rows - self.not_proven

    @property
    def wrong_sum(self) -> str:
        """Which sum does not come out, with its figures; empty if both do."""
        ends = self.equal + self.differing + self.surplus + self.young + self.unproven + self.out_of_scope
        if self.listed != self.repeats + self.refused + self.compared:
            return (
                f"the source listed {self.listed} rows, but {self.repeats} repeats, {self.refused} refused and"
                f" {self.compared} compared rows were counted"
            )
        if self.live != ends:
            return (
                f"the copy has {self.live} live rows, but {self.equal} equal, {self.differing} differing,"
                f" {self.surplus} surplus, {self.young} young, {self.unproven} unproven and {self.out_of_scope} rows"
                " out of scope were counted"
            )
        return ""
