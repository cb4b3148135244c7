//! shortage
