//! The ledger's arithmetic without a database, in milliseconds: what the SQL must do, small enough to be read. It is checked twice: against Zoho,
//! by properties over whatever workers may do, and against the SQL, by the same random steps.

/// A grant must be spent within this, in milliseconds.
pub(crate) const SEND_WITHIN: i64 = 2_000;

/// One budget and one meter.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) window: i64,
    pub(crate) timeout: i64,
    /// When each place is free again, and which grant has it.
    places: Vec<(i64, u64)>,
    flights: Vec<(i64, u64)>,
    grants: u64,
    /// So many may be under way since then.
    shrunk: Option<(i64, i64)>,
    blocked_until: i64,
    throttled: u32,
    /// Zoho's limit for the day, ours, and what others used.
    pub(crate) day: Option<i64>,
    pub(crate) used: i64,
    pub(crate) others: i64,
}

/// What a grant took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    grant: u64,
    place: usize,
    flight: usize,
}

impl Model {
    pub(crate) fn new(cap: usize, in_flight: usize, window: i64, timeout: i64) -> Self {
        Self {
            window,
            timeout,
            places: vec![(i64::MIN, 0); cap],
            flights: vec![(i64::MIN, 0); in_flight],
            grants: 0,
            shrunk: None,
            blocked_until: i64::MIN,
            throttled: 0,
            day: None,
            used: 0,
            others: 0,
        }
    }

    fn flights_allowed(&self, now: i64) -> usize {
        let all = self.flights.len();
        self.shrunk.map_or(all, |(to, at)| all.min(usize::try_from(to + (now - at).div_euclid(10_000)).unwrap_or(0)))
    }

    /// All that a call needs, or nothing.
    pub(crate) fn grant(&mut self, now: i64) -> Option<Held> {
        let spent = self.day.is_some_and(|day| day - self.used - self.others < 1);
        let (_, under_way) = self.taken(now);
        if spent || self.blocked_until > now || under_way >= self.flights_allowed(now) {
            return None;
        }
        // the place that has been free for longest, as the SQL takes it
        let free = |places: &[(i64, u64)]| (0..places.len()).min_by_key(|index| places[*index].0).filter(|index| places[*index].0 <= now);
        let held = Held { grant: self.grants + 1, place: free(&self.places)?, flight: free(&self.flights)? };
        self.grants = held.grant;
        self.places[held.place] = (now + SEND_WITHIN + self.timeout + self.window, held.grant);
        self.flights[held.flight] = (now + SEND_WITHIN + self.timeout, held.grant);
        self.used += 1;
        Some(held)
    }

    /// Sets when the places of a grant are free, if they are still its own: those of a late one may be another's.
    fn free(&mut self, held: Held, place_free_at: i64) {
        if self.places[held.place].1 == held.grant {
            self.places[held.place] = (place_free_at, 0);
        }
        if self.flights[held.flight].1 == held.grant {
            self.flights[held.flight] = (i64::MIN, 0);
        }
    }

    pub(crate) fn answered(&mut self, held: Held, now: i64) {
        self.free(held, now + self.window);
        self.throttled = 0;
    }

    pub(crate) fn not_sent(&mut self, held: Held) {
        self.free(held, i64::MIN);
        self.used -= 1;
    }

    /// Answered with "too many at once".
    pub(crate) fn crowded(&mut self, held: Held, now: i64) {
        let under_way = self.taken(now).1.min(self.flights_allowed(now));
        self.shrunk = Some((i64::try_from(under_way / 2).unwrap_or(0).max(1), now));
        self.blocked_until = self.blocked_until.max(now + 1_000 * 2_i64.pow(self.throttled).min(60));
        let throttled = self.throttled + 1;
        self.answered(held, now);
        self.throttled = throttled.min(10);
    }

    /// Answered, and told what is left of a day of so many calls.
    pub(crate) fn told(&mut self, held: Held, limit: i64, left: i64, now: i64) {
        self.answered(held, now);
        self.day = Some(limit);
        self.others = self.others.max(limit - left - self.used).max(0);
    }

    /// Places of the window, and in flight, that are taken.
    pub(crate) fn taken(&self, now: i64) -> (usize, usize) {
        let taken = |places: &[(i64, u64)]| places.iter().filter(|(free_at, _)| *free_at > now).count();
        (taken(&self.places), taken(&self.flights))
    }
}
