//! The kills and the reckoning.
