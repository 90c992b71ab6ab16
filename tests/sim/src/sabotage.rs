//! What a test breaks on purpose, to see that it is noticed. No command line can ask for it.

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// One peer's coefficients are not what its sets make.
    FlipCoefficient,
    /// One peer never hears anything.
    Deafen,
    /// A settled round has one delta twice.
    AdmitTwice,
    /// A delta that was settled is in C, but in no set that is written down.
    ForgetDelta,
    /// A peer holds more than any peer may.
    Hoard,
    /// An honest peer cuts off another one.
    BanHonest,
    /// A peer signs another delta for a round that it has signed.
    SignTwice,
    /// A delta goes back to its author's residual although it is in C.
    GiveBack,
    /// Nobody's training ever ends.
    Freeze,
    /// What a peer finds on its disk is another swarm's.
    SpoilSnapshot,
}
