//! The goals: how ours is to compare.

/// Ours to be at most `limit` × a peer's CPU time a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    pub(crate) scenario: &'static str,
    pub(crate) ours: &'static str,
    pub(crate) against: &'static str,
    pub(crate) limit: f64,
}

const fn goal(scenario: &'static str, against: &'static str, limit: f64) -> Goal {
    Goal {
        scenario,
        ours: "ours",
        against,
        limit,
    }
}

/// The library in a program of its own costs what the binary does.
const fn embedded(scenario: &'static str, embedded: &'static str, ours: &'static str) -> Goal {
    Goal {
        scenario,
        ours: embedded,
        against: ours,
        limit: 1.02,
    }
}

/// No more than another proxy with as many workers.
const fn with_two(against: &'static str) -> Goal {
    Goal {
        ours: "ours ×2",
        ..goal("s9", against, 1.00)
    }
}

pub(crate) const RATIOS: [Goal; 28] = [
    embedded("s1", "embedded", "ours"),
    embedded("s3", "embedded", "ours"),
    embedded("s4", "embedded", "ours"),
    embedded("s5a", "embedded", "ours"),
    embedded("s9", "embedded ×2", "ours ×2"),
    goal("s1", "nginx", 0.95),
    goal("s1", "haproxy", 0.95),
    goal("s1", "envoy", 0.50),
    goal("s1", "pingora", 0.58),
    goal("s1", "legacy-client", 0.75),
    goal("s2", "nginx", 0.95),
    goal("s3", "nginx", 0.60),
    goal("s4", "nginx", 0.85),
    goal("s5a", "nginx", 0.80),
    goal("s5b", "envoy", 0.90),
    goal("s8", "nginx", 1.00),
    with_two("nginx ×2"),
    with_two("haproxy ×2"),
    with_two("envoy ×2"),
    with_two("pingora ×2"),
    Goal {
        ours: "ours 1 of 1000",
        ..goal("s10", "ours", 1.03)
    },
    Goal {
        ours: "ours 1000 on one address",
        ..goal("s10", "ours", 1.03)
    },
    Goal {
        ours: "ours 1000",
        ..goal("s10", "ours", 1.03)
    },
    goal("s11", "nginx", 1.00),
    goal("s11", "haproxy", 1.00),
    goal("s11", "envoy", 1.00),
    goal("s11", "pingora", 1.00),
    goal("s11", "axum-reverse-proxy", 1.00),
];

/// KiB a connection that does nothing.
pub(crate) const IDLE_KIB: f64 = 12.0;
/// System calls a request.
pub(crate) const SYSCALLS: f64 = 4.2;
/// User-space instructions a request, to those of the floor on hyper.
pub(crate) const INSTRUCTIONS: f64 = 1.10;

pub(crate) fn of(scenario: &str, ours: &str, against: &str) -> Option<f64> {
    let goal = RATIOS
        .iter()
        .find(|goal| goal.scenario == scenario && goal.ours == ours && goal.against == against);
    goal.map(|goal| goal.limit)
}

#[cfg(test)]
mod tests {
    use super::RATIOS;
    use crate::side_by_side::scenario::by_id;
    use crate::side_by_side::subject::Subject;

    #[test]
    fn every_goal_has_its_scenario_and_subjects() {
        for goal in RATIOS {
            let scenario = by_id(goal.scenario).unwrap();
            let labels: Vec<String> = scenario.subjects.iter().map(Subject::label).collect();
            for label in [goal.ours, goal.against] {
                assert!(labels.iter().any(|known| known == label), "{goal:?}");
            }
        }
    }
}
