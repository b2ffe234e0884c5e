//! One suite for every backend: what an operator may rely on, whatever is below.

mod damage;
pub(super) mod faulty;
mod freeze;
mod model;
mod rescale;
mod site;
mod states;
mod timers;
