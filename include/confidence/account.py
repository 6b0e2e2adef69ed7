"""The account of a scan: every row that the source listed, and every live row of the copy, is counted exactly once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Account:
    """How many rows of one table one scan has found in each state. Two sums have to come out:

    - source: `listed` = `repeats` + `refused` + `compared`
    - copy: `live` = `equal` + `differing` + `surplus` + `young` + `due` + `unproven` + `out_of_scope`

    Each figure is counted by itself, none as the rest of a sum.

    - `listed`: rows that the source's list showed; `compared` of them were compared with the copy
    - `repeats`: rows whose key was listed before
    - `refused`: rows that can't be stored
    - `live`: live rows of the copy
    - `equal`, `differing`: live rows that are as at the source, or proven to differ
    - `surplus`: live rows proven to be gone at the source
    - `young`: live rows that changed after the last sync, so that the next one brings them
    - `due`: live rows that lack only `extra`, since they were written before that column was kept
    - `unproven`: live rows for which the scan can't tell whether source and copy agree
    - `out_of_scope`: live rows that the scan leaves out, by its declaration or its params
    - `missing`: rows of the source that the copy lacks, refused ones included; `missing_unproven` of them are unproven
    - `unseen`: rows that are in the total of the source's list, but that no answer has shown
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
    due: int = 0
    unproven: int = 0
    out_of_scope: int = 0
    missing: int = 0
    missing_unproven: int = 0
    unseen: int = 0

    @property
    def rows(self) -> int:
        """How many rows source and copy have in scope; a row that both have counts once."""
        return self.live - self.out_of_scope + self.missing + self.unseen

    @property
    def looked_at(self) -> int:
        """How many live rows of the copy were compared with the source. Shares are of these."""
        return self.live - self.out_of_scope - self.unproven - self.young

    @property
    def not_proven(self) -> int:
        """How many of the `rows` are unproven."""
        return self.unproven + self.missing_unproven + self.unseen

    @property
    def proven(self) -> int:
        """How many of the `rows` are proven."""
        return self.rows - self.not_proven

    @property
    def wrong_sum(self) -> str:
        """Say which sum does not come out, with its figures; empty if both do."""
        counted = self.equal + self.differing + self.surplus + self.young + self.due + self.unproven
        counted += self.out_of_scope
        if self.listed != self.repeats + self.refused + self.compared:
            return (
                f"the source listed {self.listed} rows, but {self.repeats} repeats, {self.refused} refused and"
                f" {self.compared} compared rows were counted"
            )
        if self.live != counted:
            return (
                f"the copy has {self.live} live rows, but {self.equal} equal, {self.differing} differing,"
                f" {self.surplus} surplus, {self.young} young, {self.due} due, {self.unproven} unproven and"
                f" {self.out_of_scope} rows out of scope were counted"
            )
        return ""
