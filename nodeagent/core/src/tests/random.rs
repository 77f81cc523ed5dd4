//! Random event lists: what holds whatever comes.

use super::*;

/// A random event among few ids, so that they meet.
fn any_event() -> impl Strategy<Value = Event> {
    let id = (1..3_u32, 1..4_u32).prop_map(|(a, n)| container(a, n));
    let starter = prop_oneof![
        Just(Starter::ResourceManager),
        (0..3_u64).prop_map(|s| Starter::Master(StreamId(s))),
        (0..9_u64, 1..3_u32).prop_map(|(call, application)| Starter::Call {
            call: CallId(call),
            attempt: attempt(application, 1),
        })
    ];
    let status = prop_oneof![Just(0), Just(7), Just(-104)];
    let start = (id.clone(), starter, 0..700_u64, any::<bool>(), 0..3_u64).prop_map(
        |(id, starter, memory_mib, bad, late)| Event::Start {
            starter,
            claims: claims(id, memory_mib),
            problem: bad.then(|| "bad".to_owned()).filter(|_| late == 0),
            wall: WallMillis(WALL.0 + late * 400_000),
        },
    );
    let of_one =
        (id, status, 0..12_u8, 0..3_u64).prop_map(|(id, status, kind, stream)| match kind {
            0 => Event::Stop {
                container: id,
                exit: exit(-106),
                wall: WALL,
            },
            1 => Event::StopByMaster {
                stream: StreamId(stream),
                container: id,
                wall: WALL,
            },
            2 | 3 => Event::Localized(id),
            4 => Event::LocalizeFailed {
                container: id,
                exit: exit(INVALID.0),
            },
            5 => Event::Launched(id),
            6 => Event::LaunchFailed {
                container: id,
                exit: exit(127),
            },
            7 | 8 => Event::Exited {
                container: id,
                exit: exit(status),
            },
            9 => Event::CleanedUp(id),
            10 => Event::ExitAcknowledged(id),
            _ => Event::Found {
                container: id,
                found: Found::Running,
            },
        });
    let rest = (1..3_u32, 0..3_u64, 0..8_u8).prop_map(|(application, stream, kind)| {
        let attempt = attempt(application, 1);
        match kind {
            0 => Event::RmAttached,
            1 => Event::RmLost,
            2 => Event::RmRegistered {
                heartbeat_interval_ms: 0,
                wall: WALL,
            },
            3 | 4 => Event::MasterAttached {
                stream: StreamId(stream),
                attempt,
            },
            5 => Event::MasterLost(StreamId(stream)),
            6 => Event::RevokeAttempt {
                attempt,
                keep_containers: stream == 0,
            },
            _ => Event::Tick {
                wall: WallMillis(WALL.0 + stream * 900),
            },
        }
    });
    let id = (1..3_u32, 1..4_u32).prop_map(|(a, n)| container(a, n));
    let call = (id, 1..3_u32, 1..3_u32, 0..6_u8, 0..700_u64).prop_map(
        |(id, application, number, kind, memory_mib)| {
            let version = number;
            let request = match kind {
                0 => CallRequest::Status(id),
                1 => CallRequest::Stop(id),
                2 => CallRequest::Signal {
                    container: id,
                    signal: ContainerSignal::Forceful,
                },
                3 | 4 => CallRequest::Update {
                    claims: claims(id, memory_mib),
                    version,
                },
                _ => {
                    return Event::Resize {
                        container: id,
                        resource: Resource::new(memory_mib, 1),
                        version,
                    };
                }
            };
            Event::Call {
                call: CallId(memory_mib),
                attempt: attempt(application, number),
                request,
                wall: WALL,
            }
        },
    );
    let end = (1..3_u32).prop_map(|a| Event::ApplicationEnded {
        application: attempt(a, 1).application,
        wall: WALL,
    });
    prop_oneof![6 => start, 20 => of_one, 4 => rest, 5 => call, 1 => end]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever comes: the books are right, no id is launched twice, two copies agree, and a
    /// restart from the records knows every id that was ever admitted.
    #[test]
    fn random_lives(events in prop::collection::vec(any_event(), 0..120)) {
        let (mut one, mut two) = (NodeAgent::new(config()), NodeAgent::new(config()));
        let mut records = Vec::new();
        let mut launches: BTreeMap<ContainerId, u32> = BTreeMap::new();
        let capacity = one.accounting().capacity();
        for (i, event) in events.into_iter().enumerate() {
            let now = Millis(u64::try_from(i).unwrap() * 500);
            let (mut effects, mut others) = (Vec::new(), Vec::new());
            let is_call = matches!(
                event,
                Event::Call { .. } | Event::Start { starter: Starter::Call { .. }, .. }
            );
            one.handle(now, event.clone(), &mut effects);
            two.handle(now, event, &mut others);
            prop_assert_eq!(&effects, &others);
            prop_assert_eq!(one.check_invariants(), Ok(()));
            prop_assert!(one.accounting().used().fits_in(&capacity));
            let answers = effects.iter().filter(|e| matches!(e, Effect::AnswerCall { .. })).count();
            prop_assert_eq!(answers, usize::from(is_call), "a call has one answer");
            for effect in effects {
                if let Effect::Launch(id) = effect {
                    *launches.entry(id).or_default() += 1;
                } else if let Effect::Persist(record) = effect {
                    records.push(record);
                }
            }
            let mut restarted = NodeAgent::new(config());
            for record in &records {
                restarted.handle(now, Event::Recovered(record.clone()), &mut Vec::new());
            }
            prop_assert_eq!(restarted.check_invariants(), Ok(()));
            for (id, times) in &launches {
                prop_assert_eq!(*times, 1);
                let mut effects = Vec::new();
                let again = Event::Start {
                    starter: Starter::ResourceManager,
                    claims: claims(*id, 1),
                    problem: None,
                    wall: WALL,
                };
                restarted.handle(now, again, &mut effects);
                let started = effects.iter().any(|e| matches!(e, Effect::Localize(_)));
                prop_assert!(!started, "{} would run twice", id);
            }
        }
        prop_assert_eq!(one, two);
    }

    /// A compacted journal rebuilds the same state as the whole one.
    #[test]
    fn snapshots_rebuild(events in prop::collection::vec(any_event(), 0..80)) {
        let mut core = NodeAgent::new(config());
        for event in events {
            core.handle(Millis(0), event, &mut Vec::new());
        }
        let mut rebuilt = NodeAgent::new(config());
        for record in core.snapshot() {
            rebuilt.handle(Millis(0), Event::Recovered(record), &mut Vec::new());
        }
        prop_assert_eq!(rebuilt.check_invariants(), Ok(()));
        prop_assert_eq!(rebuilt.snapshot(), core.snapshot());
    }
}
