//! `sluice auth`: turns a grant code into a stored refresh token.
