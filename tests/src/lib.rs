//! Helpers for tests that run several real `swarm` processes.
