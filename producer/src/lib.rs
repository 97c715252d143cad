//! sluice-producer
