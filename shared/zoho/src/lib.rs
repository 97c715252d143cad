//! sluice-zoho
