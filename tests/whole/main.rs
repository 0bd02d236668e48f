//! The programs as a user runs them, between real servers, under real faults.

mod api;
mod cards;
mod clocks;
mod demo;
mod faults;
mod input;
mod instruments;
mod laboratory;
mod links;
mod path;
mod series;
mod soak;
mod truth;
mod world;
