//! The programs as a user runs them, between real servers, under real faults.

mod api;
mod cards;
mod clocks;
mod demo;
mod edge;
mod enrolment;
mod faults;
mod grafana;
mod input;
mod instruments;
mod isolation;
mod laboratory;
mod links;
mod path;
mod promql;
mod series;
mod soak;
mod truth;
mod world;
