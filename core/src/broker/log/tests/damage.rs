//! Logs cut short anywhere and with any bit wrong: no panic, nothing wrong served, damage named and repaired.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::super::faulty::FaultyDisk;
use super::super::recover::{self, load};
use super::super::{repair, segment};
use super::*;
use crate::error::Kind;

/// The records of a disk, as a start would serve them.
fn records(disk: &dyn Disk) -> Result<Content> {
    let mut content = Content::new();
    let survey = recover::survey(disk).unwrap();
    load(disk, survey, &mut |position, record| {
        content.insert(position, Owned::of(record));
    })?;
    Ok(content)
}

/// What tells records apart, cheaply: their crcs were checked already.
fn prints(disk: &dyn Disk) -> Result<Vec<(Position, u64)>> {
    let mut prints = Vec::new();
    let survey = recover::survey(disk).unwrap();
    load(disk, survey, &mut |position, record| {
        let word = match record {
            Record::Message(message) => message.sequence ^ u64::from(crc32fast::hash(message.body)),
            Record::Done { ranges, .. } | Record::Pushed { ranges, .. } | Record::Acked { ranges, .. } => {
                ranges.iter().fold(1, |sum, range| sum ^ range.first ^ u64::from(range.count))
            }
            Record::Postponed { sequence, .. } => *sequence,
            Record::Topic { next_sequence, .. } => *next_sequence,
            Record::Purged { below, .. } => *below,
            Record::Subscribed { from, .. } => *from,
            _ => 0,
        };
        prints.push((position, word));
    })?;
    prints.sort_unstable();
    Ok(prints)
}

/// A log of mixed records, where the second run goes on after the first.
fn written(options: &LogOptions, batches: [usize; 2], longest: usize) -> (MemoryDisk, Content) {
    let disk = FaultyDisk::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut random = seeded(31);
    let mut content = Content::new();
    for count in batches {
        let (log, _) = open(options, Arc::new(disk.clone())).unwrap();
        content.extend(runtime.block_on(write_some(&log, &mut random, count, longest)));
    }
    (disk.image(), content)
}

/// The name of the last segment in use and how much of it is.
fn last_segment(disk: &MemoryDisk) -> (String, usize) {
    let survey = recover::survey(disk).unwrap();
    let loaded = load(disk, survey, &mut |_, _| {}).unwrap();
    let last = loaded.sound.last().unwrap();
    (segment::name_of(last.header.number), last.end)
}

#[test]
fn every_truncation_of_the_last_64_kib() {
    let options = LogOptions { segment_bytes: 96 << 10, ..small() };
    let (disk, _) = written(&options, [3, 14], 12_000);
    let (name, end) = last_segment(&disk);
    assert!(end > 70 << 10, "the last segment holds the 64 KiB: {end}");
    let whole = disk.content(&name);
    let all = prints(&disk).unwrap();
    let first = disk.content(&segment::name_of(1));
    std::thread::scope(|scope| {
        for half in 0..2 {
            let (whole, all, first, name) = (&whole, &all, &first, &name);
            scope.spawn(move || {
                // Without the files that were never used, which would only be read again and again.
                let disk = MemoryDisk::default();
                disk.put(&segment::name_of(1), first.clone());
                let mut lengths = std::collections::BTreeSet::new();
                for cut in (end - (64 << 10)..=end).filter(|cut| cut % 2 == half) {
                    disk.put(name, whole[..cut].to_vec());
                    let found = prints(&disk).unwrap();
                    assert!(found == all[..found.len()], "cut at {cut}");
                    lengths.insert(found.len());
                }
                assert!(lengths.len() > 10, "{}", lengths.len());
            });
        }
    });
}

#[test]
fn every_bit_of_a_small_log() {
    let options = LogOptions { segment_bytes: 8 << 10, ..small() };
    // Rolls over, and is begun anew once.
    let (disk, _) = written(&options, [10, 3], 700);
    let survey = recover::survey(&disk).unwrap();
    let names: Vec<_> =
        survey.parts.iter().filter(|part| part.opened.is_some()).map(|part| part.name.clone()).collect();
    assert!(names.len() >= 3, "{names:?}");
    let (last, end) = last_segment(&disk);
    let all = prints(&disk).unwrap();
    let (mut named, mut cut, mut unharmed) = (0, 0, 0);
    for name in &names {
        let whole = disk.content(name);
        let used = if *name == last { end } else { whole.len() };
        for bit in 0..used * 8 {
            // The header is in two copies and mostly empty: all of it would take long and show little.
            if (64..segment::HEADER).contains(&(bit / 8)) && bit % 64 != 0 {
                continue;
            }
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            disk.put(name, bytes);
            match catch_unwind(AssertUnwindSafe(|| prints(&disk))).expect("no panic") {
                Ok(found) => {
                    assert!(found == all[..found.len()], "bit {bit} of {name}");
                    // Only the very last batch can be taken for torn.
                    assert!(found.len() == all.len() || *name == last, "bit {bit} of {name}");
                    if found.len() == all.len() { unharmed += 1 } else { cut += 1 }
                }
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Storage);
                    assert!(error.text().contains(name.as_str()), "{error}");
                    named += 1;
                }
            }
        }
        disk.put(name, whole);
    }
    assert!(named > 1000 && cut > 100 && unharmed > 1000, "{named} {cut} {unharmed}");
}

#[test]
fn a_clean_end_leaves_nothing_to_guess() {
    let disk = FaultyDisk::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (log, _) = open(&small(), Arc::new(disk.clone())).unwrap();
    let all = runtime.block_on(write_some(&log, &mut seeded(3), 5, 500));
    log.close().unwrap();
    let image = disk.image();
    let (name, _) = last_segment(&image);
    let (position, _) = all.last_key_value().unwrap();
    let mut bytes = image.content(&name);
    // Its topic: a frame may have nothing behind that.
    bytes[position.0 as usize + 12] ^= 1;
    image.put(&name, bytes);
    let error = records(&image).unwrap_err();
    assert!(error.text().contains("damaged"), "{error}");
}

#[test]
fn a_repair_keeps_all_good_records() {
    let options = LogOptions { segment_bytes: 16 << 10, ..small() };
    let mut random = seeded(41);
    for round in 0..60 {
        let (disk, all) = written(&options, [14, 6], 1100);
        let survey = recover::survey(&disk).unwrap();
        let used: Vec<_> =
            survey.parts.iter().filter_map(|part| Some((part.name.clone(), part.opened?.base.0))).collect();
        let (name, base) = used[random.random_range(0..used.len())].clone();
        let mut bytes = disk.content(&name);
        // From one byte to a few sectors.
        let start = random.random_range(0..bytes.len());
        let stop = bytes.len().min(start + [1, 40, 600, 5000][round % 4]);
        bytes[start..stop].iter_mut().for_each(|byte| *byte = !*byte);
        disk.put(&name, bytes.clone());
        let reports = repair::verify(&disk).unwrap();
        let damaged = reports.iter().any(|report| report.damage.is_some());
        assert_eq!(damaged, records(&disk).is_err(), "round {round}");
        let repaired = repair::repair(&disk).unwrap();
        assert_eq!(damaged, !repaired.is_empty());
        let found = records(&disk).unwrap();
        let harmed = base + start as u64..base + stop as u64;
        let ends: Vec<u64> = all.keys().skip(1).map(|position| position.0).chain([u64::MAX]).collect();
        for ((position, record), end) in all.iter().zip(ends) {
            let touched = position.0 < harmed.end && end > harmed.start;
            match found.get(position) {
                Some(kept) => assert_eq!(kept, record, "round {round}"),
                // The end of what is known of a torn tail is the first bad byte.
                None => assert!(
                    touched || (!damaged && position.0 >= harmed.start),
                    "round {round}: {position:?} {harmed:?}"
                ),
            }
        }
        assert!(found.len() <= all.len());
        if let Some(first) = repaired.first() {
            assert_eq!(disk.content(&first.quarantined), bytes, "the damaged file is kept");
            assert!(repair::repair(&disk).unwrap().is_empty());
        }
        drop(open(&options, Arc::new(disk)).unwrap());
    }
}

#[test]
fn a_missing_segment_is_named_and_passed_over_by_a_repair() {
    let options = LogOptions { segment_bytes: 16 << 10, ..small() };
    let (disk, all) = written(&options, [40, 4], 1100);
    let survey = recover::survey(&disk).unwrap();
    let used: Vec<_> =
        survey.parts.iter().filter_map(|part| Some((part.name.clone(), part.opened?.base.0))).collect();
    let (name, base) = &used[1];
    disk.remove(name).unwrap();
    let error = records(&disk).unwrap_err();
    assert!(error.text().contains("missing"), "{error}");
    assert_eq!(repair::repair(&disk).unwrap().len(), 1);
    let found = records(&disk).unwrap();
    let gone = *base..used[2].1;
    assert!(all.keys().any(|position| gone.contains(&position.0)));
    let expected: Content = all.into_iter().filter(|(position, _)| !gone.contains(&position.0)).collect();
    assert_eq!(found, expected);
}

#[test]
fn one_damaged_segment_is_no_damage_of_the_later_ones() {
    let options = LogOptions { segment_bytes: 16 << 10, ..small() };
    let (disk, _) = written(&options, [120, 4], 1100);
    let survey = recover::survey(&disk).unwrap();
    let used: Vec<_> =
        survey.parts.iter().filter(|part| part.opened.is_some()).map(|part| part.name.clone()).collect();
    assert!(used.len() >= 5, "{used:?}");
    let damaged = |disk: &MemoryDisk| -> Vec<String> {
        let reports = repair::verify(disk).unwrap();
        reports.into_iter().filter(|report| report.damage.is_some()).map(|report| report.name).collect()
    };
    // In its first record, in a later one, in its header; and in two that follow each other.
    for (first, offset) in [(1, segment::HEADER + 8), (1, segment::HEADER + 3000), (2, 20)] {
        let whole = [disk.content(&used[first]), disk.content(&used[first + 1])];
        let mut bytes = whole[0].clone();
        bytes[offset] ^= 1;
        // A header has a copy there.
        bytes[offset ^ 2048] ^= 1;
        disk.put(&used[first], bytes);
        assert_eq!(damaged(&disk), used[first..=first]);
        let mut bytes = whole[1].clone();
        bytes[segment::HEADER + 3000] ^= 1;
        disk.put(&used[first + 1], bytes);
        assert_eq!(damaged(&disk), used[first..=first + 1]);
        let [one, two] = whole;
        disk.put(&used[first], one);
        disk.put(&used[first + 1], two);
    }
    // One that is missing behind a damaged one is told by the one behind it.
    let mut bytes = disk.content(&used[1]);
    bytes[segment::HEADER + 3000] ^= 1;
    disk.put(&used[1], bytes);
    disk.remove(&used[2]).unwrap();
    assert_eq!(damaged(&disk), [used[1].as_str(), used[3].as_str()]);
}

#[test]
fn a_folder_is_verified_and_repaired() {
    let scratch = Scratch::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (log, _) = open(&small(), scratch.disk()).unwrap();
    let all = runtime.block_on(write_some(&log, &mut seeded(5), 200, 2000));
    assert_eq!(Log::verify(&scratch.0).unwrap_err().kind(), Kind::InUse);
    log.close().unwrap();
    drop(log);
    let reports = Log::verify(&scratch.0).unwrap();
    assert!(reports.iter().all(|report| report.damage.is_none()));
    assert_eq!(reports.iter().map(|report| report.records).sum::<u64>(), all.len() as u64);
    let name = segment::name_of(1);
    let mut bytes = std::fs::read(scratch.0.join(&name)).unwrap();
    bytes[segment::HEADER + 3000] ^= 4;
    std::fs::write(scratch.0.join(&name), bytes).unwrap();
    let error = open(&small(), scratch.disk()).unwrap_err();
    let text = error.text();
    assert!(text.contains(&scratch.0.join(&name).display().to_string()) && text.contains("byte"), "{text}");
    let repaired = Log::repair(&scratch.0).unwrap();
    assert_eq!(repaired.len(), 1);
    assert!(scratch.0.join(&repaired[0].quarantined).exists());
    let (_, found) = open(&small(), scratch.disk()).unwrap();
    assert!(found.len() < all.len() && found.len() >= all.len() - 2, "{} of {}", found.len(), all.len());
}
