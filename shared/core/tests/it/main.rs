//! Integration tests of `sluice_core`: one binary, a module per subject.

mod config;
