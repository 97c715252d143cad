//! The modules of Zoho Billing that we know, in one table.

/// A module of Zoho Billing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Module {
    /// People and companies that are billed.
    Customers,
    /// What plans belong to.
    Products,
    /// Prices with an interval; addressed by their code, not by an id.
    Plans,
    /// A customer on a plan.
    Subscriptions,
    /// Invoices.
    Invoices,
    /// Payments received. They cannot be listed: see [`Module::Transactions`].
    Payments,
    /// Invoices, payments and credits of one customer, by list only.
    Transactions,
    /// What happened in the organisation; read only.
    Events,
}

/// What a module allows, after Zoho's OpenAPI files of Billing v1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verbs {
    pub(super) write: bool,
    pub(super) get: bool,
    pub(super) list: bool,
}

struct Row {
    /// Name in the configuration, path, and key of a list answer: Billing uses one word for the three.
    name: &'static str,
    /// Key of a single record in an answer.
    one: &'static str,
    /// Key of a record's address: its id, or its code.
    id: &'static str,
    verbs: Verbs,
}

const FULL: Verbs = Verbs { write: true, get: true, list: true };

impl Module {
    /// All modules.
    pub const ALL: [Self; 8] = [
        Self::Customers,
        Self::Products,
        Self::Plans,
        Self::Subscriptions,
        Self::Invoices,
        Self::Payments,
        Self::Transactions,
        Self::Events,
    ];

    /// The one table.
    fn row(self) -> Row {
        let (name, one, id, verbs) = match self {
            Self::Customers => ("customers", "customer", "customer_id", FULL),
            Self::Products => ("products", "product", "product_id", FULL),
            Self::Plans => ("plans", "plan", "plan_code", FULL),
            Self::Subscriptions => ("subscriptions", "subscription", "subscription_id", FULL),
            Self::Invoices => ("invoices", "invoice", "invoice_id", FULL),
            Self::Payments => ("payments", "payment", "payment_id", Verbs { list: false, ..FULL }),
            Self::Transactions => ("transactions", "transaction", "transaction_id", Verbs { write: false, get: false, list: true }),
            Self::Events => ("events", "event", "event_id", Verbs { write: false, ..FULL }),
        };
        Row { name, one, id, verbs }
    }

    /// The module that the configuration calls `billing/{name}`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|module| module.row().name == name)
    }

    /// The name in the configuration, which is also the path segment and the key of a list answer.
    pub fn as_str(self) -> &'static str {
        self.row().name
    }

    /// The key that holds one record in an answer.
    pub fn response_key(self) -> &'static str {
        self.row().one
    }

    /// The key of a record's address: `customer_id`, and `plan_code` for plans.
    pub fn id_key(self) -> &'static str {
        self.row().id
    }

    /// Whether records are addressed by a code of our own choosing instead of an id of Zoho's.
    pub fn addressed_by_code(self) -> bool {
        self == Self::Plans
    }

    /// Whether records can be created, updated and deleted.
    pub fn writable(self) -> bool {
        self.row().verbs.write
    }

    /// Whether its records can be listed.
    pub fn listed(self) -> bool {
        self.row().verbs.list
    }

    pub(super) fn verbs(self) -> Verbs {
        self.row().verbs
    }
}
