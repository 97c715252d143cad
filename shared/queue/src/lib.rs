//! sluice-queue
