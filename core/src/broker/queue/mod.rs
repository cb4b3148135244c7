//! The compact state machine of one topic.
#![allow(dead_code, reason = "the topics are not moved onto it yet")]
