//! sluice-simulator
