//! sluice-sync
