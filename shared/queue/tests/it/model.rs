//! The ledger's arithmetic without a database, in milliseconds: what the SQL must do, small enough to be read. It is checked twice: against Zoho,
//! by properties over whatever workers may do, and against the SQL, by the same random steps.

/// A grant must be spent within this, in milliseconds.
pub(crate) const SEND_WITHIN: i64 = 2_000;
/// Credits are counted by the quarter of an hour in which they were granted, and forgotten when the 98th after it begins.
pub(crate) const QUARTER: i64 = 900_000;
const QUARTERS: i64 = 98;
/// From midnight to midnight.
pub(crate) const DAY: i64 = 86_400_000;
/// Calls of at least this long before midnight count for both days.
const LAST_MINUTE: i64 = 60_000;

/// What one budget may have at once, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caps {
    pub(crate) window_calls: usize,
    pub(crate) in_flight: usize,
    /// Zero: the product knows no heavy calls.
    pub(crate) heavy: usize,
    pub(crate) window: i64,
    pub(crate) timeout: i64,
}

/// What is counted beside the calls of a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meter {
    /// Calls until midnight: so many, if it is known, for everybody.
    Day { told: Option<i64>, used: i64, others: i64, ends: i64 },
    /// Credits of 24 hours, for everybody; ours by the quarter of an hour in which they were granted. What others used is forgotten as well when
    /// nothing was written for as long.
    Credits { told: i64, spent: Vec<(i64, i64)>, others: i64, written: i64 },
}

impl Meter {
    pub(crate) fn used(&self, now: i64) -> i64 {
        match self {
            Self::Day { used, .. } => *used,
            Self::Credits { spent, .. } => {
                let current = now.div_euclid(QUARTER);
                spent.iter().filter(|(quarter, _)| current - quarter < QUARTERS).map(|(_, amount)| amount).sum()
            }
        }
    }

    pub(crate) fn told(&self) -> Option<i64> {
        match self {
            Self::Day { told, .. } => *told,
            Self::Credits { told, .. } => Some(*told),
        }
    }

    pub(crate) fn others(&self, now: i64) -> i64 {
        match self {
            Self::Day { others, .. } => *others,
            Self::Credits { others, written, .. } => {
                if now.div_euclid(QUARTER) - written < QUARTERS {
                    *others
                } else {
                    0
                }
            }
        }
    }

    /// A day of which nothing is used.
    pub(crate) fn day(ends: i64) -> Self {
        Self::Day { told: None, used: 0, others: 0, ends }
    }

    /// As it stands now: a day that is over begins anew. `straddling`: calls of the last minute before its end, which Zoho may count for either day.
    fn turned(&self, straddling: i64, now: i64) -> Self {
        match self {
            Self::Day { told, used, ends, .. } if *ends <= now => {
                let days = (now - ends).div_euclid(DAY) + 1;
                Self::Day { told: *told, used: straddling.min(*used), others: 0, ends: ends + days * DAY }
            }
            _ => self.clone(),
        }
    }

    /// Credits of which nothing is used.
    pub(crate) fn credits(told: i64) -> Self {
        Self::Credits { told, spent: Vec::new(), others: 0, written: 0 }
    }

    fn left(&self, now: i64) -> Option<i64> {
        self.told().map(|told| told - self.used(now) - self.others(now))
    }

    /// Whether one call may find out how much others have used by now: nobody has asked for a quarter of an hour.
    fn asks(&self, now: i64) -> bool {
        let Self::Credits { spent, .. } = self else { return false };
        let current = now.div_euclid(QUARTER);
        let of = |quarter| spent.iter().filter(|(q, _)| *q == quarter).map(|(_, amount)| amount).sum::<i64>();
        self.others(now) > 0 && of(current) == 0 && of(current - 1) == 0
    }

    /// What the answer says of the meter. Only what exceeds all that we were granted is taken for others'.
    fn hear(&mut self, became: Became, answered: bool, now: i64) {
        let (ours, known, current) = (self.used(now), self.others(now), now.div_euclid(QUARTER));
        match (self, became) {
            (Self::Day { told, others, .. }, Became::Told(limit, left)) => {
                *told = Some(limit);
                *others = (*others).max(limit - left - ours).max(0);
            }
            (Self::Credits { told, others, written, .. }, Became::Told(_, left)) => {
                *told = (*told).max(left);
                let new = (*told - left - ours).max(0);
                if new != known {
                    (*others, *written) = (new, current);
                }
            }
            // the figure is sent once half is spent: without it others have spent less
            (Self::Credits { told, others, written, .. }, _) if answered => {
                let new = known.min((*told / 2 - ours).max(0));
                if new != known {
                    (*others, *written) = (new, current);
                }
            }
            _ => {}
        }
    }

    /// Charges a call that was granted at that time, or gives back what it did not cost.
    fn charge(&mut self, amount: i64, granted_at: i64, now: i64) {
        let known = self.others(now);
        match self {
            Self::Day { used, ends, .. } if granted_at >= *ends - DAY => *used += amount,
            Self::Day { .. } => {} // what another day's call did not cost is nothing to this one
            Self::Credits { spent, others, written, .. } if amount != 0 => {
                spent.push((granted_at.div_euclid(QUARTER), amount));
                (*others, *written) = (known, now.div_euclid(QUARTER));
            }
            Self::Credits { .. } => {}
        }
    }
}

/// A place that is free from a moment on, and the batch that has it.
type Place = (i64, u64);

/// One budget and one meter.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    caps: Caps,
    places: Vec<Place>,
    /// When each place of the window was last granted for a call that was sent.
    granted: Vec<Option<i64>>,
    flights: Vec<Place>,
    heavies: Vec<Place>,
    batches: u64,
    /// So many may be under way since then.
    shrunk: Option<(i64, i64)>,
    blocked_until: i64,
    throttled: u32,
    pub(crate) meter: Meter,
    /// The places that the SQL took, of the window, in flight and heavy. Where several have been free for equally long, either is right.
    pub(crate) preferred: [Option<usize>; 3],
}

/// A batch, and what its call in hand took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    batch: u64,
    place: Option<usize>,
    flight: Option<usize>,
    heavy: Option<usize>,
    /// What is reserved for the call in hand.
    pub(crate) cost: i64,
    granted_at: i64,
    /// Records of the batch.
    pub(crate) records: i64,
}

impl Held {
    /// Whether there is a grant in hand; without one nothing is sent.
    pub(crate) fn may_send(&self) -> bool {
        self.place.is_some()
    }

    pub(crate) fn has_heavy(&self) -> bool {
        self.heavy.is_some()
    }
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Became {
    NotSent,
    /// Answered, and it cost so much of what was reserved.
    Answered(i64),
    Unanswered,
    /// Answered with "too many at once".
    Crowded,
    /// Answered, and told Zoho's limit and what is left of it. Credits: only what is left.
    Told(i64, i64),
}

/// The place that has been free for longest; of several, the one that is `preferred`.
fn free(places: &[Place], preferred: Option<usize>, now: i64) -> Option<usize> {
    (0..places.len()).min_by_key(|index| (places[*index].0, Some(*index) != preferred)).filter(|index| places[*index].0 <= now)
}

fn taken(places: &[Place], now: i64) -> usize {
    places.iter().filter(|(free_at, _)| *free_at > now).count()
}

impl Model {
    pub(crate) fn new(caps: Caps, meter: Meter) -> Self {
        let places = |count| vec![(i64::MIN, 0); count];
        Self {
            caps,
            places: places(caps.window_calls),
            granted: vec![None; caps.window_calls],
            flights: places(caps.in_flight),
            heavies: places(caps.heavy),
            batches: 0,
            shrunk: None,
            blocked_until: i64::MIN,
            throttled: 0,
            meter,
            preferred: [None; 3],
        }
    }

    fn flights_allowed(&self, now: i64) -> usize {
        let all = self.flights.len();
        self.shrunk.map_or(all, |(to, at)| all.min(usize::try_from(to + (now - at).div_euclid(10_000)).unwrap_or(0)))
    }

    /// The meter as it stands now.
    pub(crate) fn meter_at(&self, now: i64) -> Meter {
        let straddling = match &self.meter {
            Meter::Day { ends, .. } => self.granted.iter().flatten().filter(|at| **at > ends - self.caps.window.max(LAST_MINUTE)).count(),
            Meter::Credits { .. } => 0,
        };
        self.meter.turned(i64::try_from(straddling).unwrap_or(i64::MAX), now)
    }

    /// A batch with all that its call needs, or nothing. Fewer records than wanted where the heavy pool or the credits have no room.
    pub(crate) fn grant(&mut self, wanted: i64, now: i64) -> Option<Held> {
        let mut meter = self.meter_at(now);
        let left = meter.left(now);
        if left.is_some_and(|left| left < 1) && !meter.asks(now)
            || self.blocked_until > now
            || taken(&self.flights, now) >= self.flights_allowed(now)
        {
            return None;
        }
        let [place, flight, heavy] = self.free(now);
        let (place, flight) = (place?, flight?);
        let credits = matches!(meter, Meter::Credits { .. });
        let mut records = wanted;
        if credits && wanted > 1 {
            if heavy.is_none() {
                records = records.min(10);
            }
            records = records.min(10 * left.unwrap_or(i64::MAX / 10).max(1));
        }
        let cost = if credits { (records + 9) / 10 } else { 1 };
        self.batches += 1;
        let heavy = heavy.filter(|_| credits && records > 10);
        let held = Held { batch: self.batches, place: Some(place), flight: Some(flight), heavy, cost, granted_at: now, records };
        meter.charge(cost, now, now);
        self.meter = meter;
        self.take(&held, now);
        Some(held)
    }

    fn free(&self, now: i64) -> [Option<usize>; 3] {
        let [place, flight, heavy] = self.preferred;
        [free(&self.places, place, now), free(&self.flights, flight, now), free(&self.heavies, heavy, now)]
    }

    fn take(&mut self, held: &Held, now: i64) {
        let arrived_by = now + SEND_WITHIN + self.caps.timeout;
        if let Some(place) = held.place {
            self.places[place] = (arrived_by + self.caps.window, held.batch);
            self.granted[place] = Some(now);
        }
        for (places, index) in [(&mut self.flights, held.flight), (&mut self.heavies, held.heavy)] {
            if let Some(index) = index {
                places[index] = (arrived_by, held.batch);
            }
        }
    }

    /// The call in hand is over. Its place is touched only if it is still its own: that of a late one may be another's.
    fn end_call(&mut self, held: &Held, became: Became, now: i64) {
        let answered = !matches!(became, Became::NotSent | Became::Unanswered);
        if let Some(place) = held.place
            && self.places[place].1 == held.batch
        {
            match became {
                Became::NotSent => (self.places[place], self.granted[place]) = ((i64::MIN, 0), None),
                Became::Unanswered => {}
                _ => self.places[place] = (now + self.caps.window, 0),
            }
        }
        let unused = match became {
            Became::NotSent => held.cost,
            Became::Answered(cost) => (held.cost - cost).max(0),
            _ => 0,
        };
        let before = self.meter_at(now);
        let mut meter = before.clone();
        meter.charge(-unused, held.granted_at, now);
        meter.hear(became, answered, now);
        // a day that only turned is not written: who reads it next turns it anew
        if meter != before {
            self.meter = meter;
        }
        if became == Became::Crowded {
            let under_way = taken(&self.flights, now).min(self.flights_allowed(now));
            self.shrunk = Some((i64::try_from(under_way / 2).unwrap_or(0).max(1), now));
            self.blocked_until = self.blocked_until.max(now + 1_000 * 2_i64.pow(self.throttled).min(60));
            self.throttled = (self.throttled + 1).min(10);
        } else if answered {
            self.throttled = 0;
        }
    }

    /// The batch is settled; an unanswered call may be under way still.
    pub(crate) fn settle(&mut self, held: Held, became: Became, now: i64) {
        self.end_call(&held, became, now);
        if became == Became::Unanswered {
            return;
        }
        for (places, index) in [(&mut self.flights, held.flight), (&mut self.heavies, held.heavy)] {
            if let Some(index) = index
                && places[index].1 == held.batch
            {
                places[index] = (i64::MIN, 0);
            }
        }
    }

    /// Another call of the same batch: all that it needs, or nothing. The call before is over either way.
    pub(crate) fn again(&mut self, held: &mut Held, became: Became, (units, heavy): (i64, bool), now: i64) -> bool {
        self.end_call(held, became, now);
        // those of a call that is still under way stay taken; those that it outlived may be another's
        let kept = |places: &[Place], index: Option<usize>| {
            index.filter(|i| became != Became::Unanswered && places[*i].0 > now && places[*i].1 == held.batch)
        };
        (held.flight, held.heavy) = (kept(&self.flights, held.flight), kept(&self.heavies, held.heavy));
        (held.place, held.cost) = (None, 0);
        let mut meter = self.meter_at(now);
        let affordable = meter.left(now).is_none_or(|left| left >= units);
        let crowded = held.flight.is_none() && taken(&self.flights, now) >= self.flights_allowed(now);
        if !affordable || crowded || self.blocked_until > now {
            return false;
        }
        let needs_heavy = heavy && self.caps.heavy > 0 && held.heavy.is_none();
        let [place, flight, pool] = self.free(now);
        let (flight, pool) = (held.flight.or(flight), held.heavy.or(pool));
        if place.is_none() || flight.is_none() || needs_heavy && pool.is_none() {
            return false;
        }
        held.flight = flight;
        if needs_heavy {
            held.heavy = pool;
        }
        (held.place, held.cost, held.granted_at) = (place, units, now);
        meter.charge(units, now, now);
        self.meter = meter;
        self.take(&held.clone(), now);
        true
    }

    /// Places that are taken: of the window, in flight, heavy.
    pub(crate) fn taken(&self, at: i64) -> (usize, usize, usize) {
        (taken(&self.places, at), taken(&self.flights, at), taken(&self.heavies, at))
    }
}
