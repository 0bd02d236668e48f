//! What each role may ask: every route that needs anybody known, by method. What doesn't stand here is denied.

use axum::http::Method;

use super::pages::VIEWS;
use crate::accounts::Role;
use crate::accounts::Role::{Admin, RegionalManager, Technician, Viewer};

/// A method and a path as the router knows it, and the least role that may.
pub const RULES: &[(&str, &str, Role)] = &[
    // What is and was.
    ("GET", "/ws/updates", Viewer),
    ("GET", "/api/v1/openapi.json", Viewer),
    ("GET", "/api/v1/dashboard/stats", Viewer),
    ("GET", "/api/v1/devices", Viewer),
    ("GET", "/api/v1/devices/{id}", Viewer),
    ("GET", "/api/v1/devices/{id}/history", Viewer),
    ("GET", "/api/v1/devices/{id}/transitions", Viewer),
    ("GET", "/api/v1/devices/{id}/outages", Viewer),
    ("GET", "/api/v1/devices/{id}/identity", Viewer),
    ("GET", "/api/v1/branches/{id}/cuts", Viewer),
    ("GET", "/api/v1/events", Viewer),
    ("GET", "/api/v1/branches", Viewer),
    ("GET", "/api/v1/branches/{id}", Viewer),
    ("GET", "/api/v1/branches/{id}/coverage", Viewer),
    ("GET", "/api/v1/regions", Viewer),
    ("GET", "/api/v1/agents", Viewer),
    ("GET", "/api/v1/availability", Viewer),
    ("GET", "/api/v1/maintenance", Viewer),
    ("GET", "/api/v1/service-hours", Viewer),
    ("GET", "/api/v1/query", Viewer),
    ("POST", "/api/v1/query", Viewer),
    ("GET", "/api/v1/query_range", Viewer),
    ("POST", "/api/v1/query_range", Viewer),
    ("GET", "/api/v1/labels", Viewer),
    ("POST", "/api/v1/labels", Viewer),
    ("GET", "/api/v1/label/{name}/values", Viewer),
    ("GET", "/api/v1/series", Viewer),
    ("POST", "/api/v1/series", Viewer),
    ("POST", "/api/v1/graphql", Viewer),
    ("GET", "/api/v1/schema.graphql", Viewer),
    // Oneself.
    ("GET", "/api/v1/me", Viewer),
    ("POST", "/api/v1/me/password", Viewer),
    ("POST", "/logout", Viewer),
    // Devices, and when they are worked on.
    ("POST", "/api/v1/devices/{id}/probe", Technician),
    ("POST", "/api/v1/devices/{id}/traceroute", Technician),
    ("DELETE", "/api/v1/devices/{id}/identity", Technician),
    ("POST", "/api/v1/branches/{id}/discovery", Technician),
    ("POST", "/api/v1/devices", Technician),
    ("PATCH", "/api/v1/devices/{id}", Technician),
    ("DELETE", "/api/v1/devices/{id}", Technician),
    ("GET", "/api/v1/inventory.csv", Technician),
    ("POST", "/api/v1/maintenance", Technician),
    ("DELETE", "/api/v1/maintenance/{id}", Technician),
    // Branches, what was promised and whether it was kept.
    ("POST", "/api/v1/branches", RegionalManager),
    ("PATCH", "/api/v1/branches/{id}", RegionalManager),
    ("DELETE", "/api/v1/branches/{id}", RegionalManager),
    ("POST", "/api/v1/inventory/import", RegionalManager),
    ("GET", "/api/v1/reports/sla", RegionalManager),
    ("GET", "/api/v1/reports/uptime", RegionalManager),
    ("GET", "/api/v1/reports/flapping", RegionalManager),
    ("GET", "/api/v1/reports/rtt", RegionalManager),
    ("POST", "/api/v1/service-hours", RegionalManager),
    ("DELETE", "/api/v1/service-hours/{id}", RegionalManager),
    // The estate and the people.
    ("POST", "/api/v1/regions", Admin),
    ("PATCH", "/api/v1/regions/{id}", Admin),
    ("DELETE", "/api/v1/regions/{id}", Admin),
    ("GET", "/api/v1/users", Admin),
    ("POST", "/api/v1/users", Admin),
    ("PATCH", "/api/v1/users/{name}", Admin),
    ("DELETE", "/api/v1/users/{name}", Admin),
    ("GET", "/api/v1/tokens", Admin),
    ("POST", "/api/v1/tokens", Admin),
    ("DELETE", "/api/v1/tokens/{id}", Admin),
    ("GET", "/api/v1/audit", Admin),
];

/// Questions that have a body and change nothing: no other site's page could do harm with them.
const QUESTIONS: [&str; 5] = ["/api/v1/query", "/api/v1/query_range", "/api/v1/labels", "/api/v1/series", "/api/v1/graphql"];

/// What a route asks of who calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rule {
    /// This role, or one that may do more.
    Least(Role),
    /// Nobody may: the path takes other methods, as a list for the header `allow`.
    OtherMethods(String),
    /// Nobody may: the path isn't known here.
    Nothing,
}

/// The rule of a route.
pub(super) fn rule(method: &Method, path: &str) -> Rule {
    // A HEAD is a GET whose answer nobody reads.
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    if VIEWS.contains(&path) {
        // A view is the page, and what it shows is asked for by other routes.
        return if method == "GET" { Rule::Least(Viewer) } else { Rule::OtherMethods("GET,HEAD".to_owned()) };
    }
    let of_path = || RULES.iter().filter(|(_, known, _)| *known == path);
    match of_path().find(|(known, ..)| *known == method) {
        Some((.., role)) => Rule::Least(*role),
        None => {
            let mut methods: Vec<&str> = of_path().map(|(method, ..)| *method).collect();
            if methods.contains(&"GET") {
                methods.push("HEAD");
            }
            if methods.is_empty() { Rule::Nothing } else { Rule::OtherMethods(methods.join(",")) }
        }
    }
}

/// Whether a request may change something, so that a page has to show more than a cookie.
pub(super) fn changes(method: &Method, path: &str) -> bool {
    !(method == Method::GET || method == Method::HEAD || QUESTIONS.contains(&path))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_route_that_is_described_has_a_rule_and_no_other_has_two() {
        let described = super::super::openapi::describe();
        for (path, methods) in described["paths"].as_object().expect("paths") {
            for method in methods.as_object().expect("methods").keys() {
                let method = method.to_uppercase();
                assert!(RULES.iter().any(|(m, p, _)| *m == method && p == path), "{method} {path}");
            }
        }
        let each: BTreeSet<_> = RULES.iter().map(|(method, path, _)| (method, path)).collect();
        assert_eq!(each.len(), RULES.len());
    }

    #[test]
    fn what_has_no_rule_is_denied() {
        assert_eq!(rule(&Method::GET, "/api/v1/devices"), Rule::Least(Viewer));
        assert_eq!(rule(&Method::HEAD, "/api/v1/devices"), Rule::Least(Viewer));
        assert_eq!(rule(&Method::PUT, "/api/v1/devices"), Rule::OtherMethods("GET,POST,HEAD".to_owned()));
        assert_eq!(rule(&Method::HEAD, "/logout"), Rule::OtherMethods("POST".to_owned()));
        assert_eq!(rule(&Method::GET, "/api/v1/secrets"), Rule::Nothing);
    }

    #[test]
    fn whatever_may_change_something_is_no_question() {
        for (method, path, _) in RULES.iter().filter(|(method, ..)| *method != "GET") {
            let method: Method = method.parse().expect("a method");
            assert_eq!(changes(&method, path), !QUESTIONS.contains(path), "{method} {path}");
        }
    }
}
