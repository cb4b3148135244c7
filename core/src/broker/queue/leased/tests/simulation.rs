//! Random lives, with restarts and cleaning, against a list of messages that is searched.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// Steps of time that all clocks can tell apart.
const STEP_MS: u64 = 8;

#[derive(Debug, Clone)]
struct One {
    priority: u8,
    /// Milliseconds of the wall.
    visible: i64,
    /// None while nobody may name it; 0 while its delay runs.
    serial: Option<u64>,
    count: u32,
    first_ms: i64,
}

#[derive(Debug, Default)]
struct Model(BTreeMap<u64, One>);

impl Model {
    fn next(&self, now: i64) -> Option<u64> {
        let visible = self.0.iter().filter(|(_, one)| one.visible <= now);
        visible.min_by_key(|(sequence, one)| (one.priority, **sequence)).map(|(sequence, _)| *sequence)
    }

    fn holds(&self, (sequence, serial): (u64, u64), now: i64) -> bool {
        self.0.get(&sequence).is_some_and(|one| one.serial == Some(serial) && one.visible > now)
    }
}

fn live(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut bench, mut model) = (Bench::new(), Model::default());
    let mut handles: Vec<(u64, u64)> = Vec::new();
    for _ in 0..400 {
        let now = bench.wall();
        match random.random_range(0..12) {
            0..3 => {
                let priority = random.random_range(1..=16);
                let delay = random.random_range(0..4) * random.random_range(0..40) * STEP_MS;
                let sequence = bench.send(draft(priority, delay));
                let serial = (delay > 0).then_some(0);
                if delay > 0 {
                    handles.push((sequence, 0));
                }
                let visible = now + delay as i64;
                let one = One { priority, visible, serial, count: 0, first_ms: 0 };
                assert!(model.0.insert(sequence, one).is_none(), "seed {seed}: a sequence comes twice");
            }
            3..6 => {
                let (most, hidden) = (random.random_range(1..=16), random.random_range(1..60) * STEP_MS);
                let peeked = bench.queue.peek(most);
                let taken = bench.take(most, hidden);
                assert_eq!(peeked.len(), taken.len(), "seed {seed}");
                for (seen, taken) in peeked.iter().zip(&taken) {
                    let sequence = model.next(now).unwrap();
                    let one = model.0.get_mut(&sequence).unwrap();
                    assert_eq!((seen.sequence, seen.count), (sequence, one.count), "seed {seed}");
                    one.count += 1;
                    one.first_ms = if one.first_ms > 0 { one.first_ms } else { now };
                    one.visible = now + hidden as i64;
                    one.serial = Some(taken.serial);
                    let shown = (taken.sequence, taken.priority, taken.count, taken.first_ms, taken.until_ms);
                    let wanted = (sequence, one.priority, one.count, one.first_ms, one.visible);
                    assert_eq!(shown, wanted, "seed {seed}");
                    handles.push((sequence, taken.serial));
                }
                assert!(taken.len() == most || model.next(now).is_none(), "seed {seed}: one was left");
            }
            kind @ 6..9 => {
                if handles.is_empty() {
                    continue;
                }
                let handle = handles[random.random_range(0..handles.len())];
                let held = model.holds(handle, now);
                if kind < 8 {
                    assert_eq!(bench.delete(handle), held, "seed {seed}");
                    if held {
                        model.0.remove(&handle.0);
                    }
                    continue;
                }
                let hidden = random.random_range(0..60) * STEP_MS;
                let changed = bench.change(handle, hidden);
                assert_eq!(changed.is_some(), held, "seed {seed}");
                if let Some(serial) = changed {
                    let one = model.0.get_mut(&handle.0).unwrap();
                    (one.visible, one.serial) = (now + hidden as i64, Some(serial));
                    handles.push((handle.0, serial));
                }
            }
            9 => bench.pass(random.random_range(0..80) * STEP_MS),
            10 => bench.restart(),
            _ => bench.clean(random.random_range(0..200)),
        }
        let counts = bench.queue.counts();
        assert_eq!(counts.ready + counts.leased + counts.delayed, model.0.len(), "seed {seed}");
        let visible = model.0.values().filter(|one| one.visible <= bench.wall()).count();
        assert_eq!(counts.ready, visible, "seed {seed}");
        assert_eq!(bench.queue.body_bytes(), 4 * model.0.len(), "seed {seed}");
    }
}

#[test]
fn random_lives_are_those_of_the_model() {
    (0..300).for_each(live);
}
