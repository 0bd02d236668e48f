//! The programs as a user runs them, between real servers, under real faults.

mod api;
mod cache;
mod cards;
mod clocks;
mod cuts;
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
mod services;
mod shared_host;
mod soak;
mod truth;
mod updates;
mod uplinks;
mod world;
