//! Verifiers of other languages.
