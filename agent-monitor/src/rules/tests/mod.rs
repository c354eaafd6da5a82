//! What holds of rules as a whole.

mod fields;
mod pack;
