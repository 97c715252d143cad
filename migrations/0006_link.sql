-- What both sides agreed on, record by record.

-- One row per local record that is, or is about to be, a Zoho record. Unique both ways: a local record has one Zoho record, and a
-- Zoho record belongs to one local record of a sync. A row without zoho_id is the intent of a create, committed before the call:
-- whoever finds create_sent_at knows that a create may have happened whose answer nobody has seen.
create table sluice.link (
  sync             text        not null,
  key              text        not null,                       -- canonical: what the key columns' own types print
  zoho_id          text,
  fields           jsonb       not null default '{}',          -- {"<zoho field>": {"local": …, "zoho": …, "confirmed": bool}}
  zoho_modified_at timestamptz,                                -- Zoho's own time of the newest state that we know
  create_sent_at   timestamptz,                                -- a create may be under way, or lost, since then
  creates          smallint    not null default 0,             -- creates sent whose outcome we never learnt
  look_again_at    timestamptz,                                -- a repeated create is looked up once more at this time
  hold_until       timestamptz,                                -- a lost write may still arrive until then; outlives the record's slot
  pushed_at        timestamptz,                                -- the last write that was sent: min_interval counts from here
  synced_at        timestamptz,                                -- both sides were last known equal
  held             boolean     not null default false,         -- the row no longer matches `when`: what Zoho has is left as it is
  write_sent_at     timestamptz,                               -- the last write of ours, from the sending to its answer, and its fields:
  write_answered_at timestamptz,                               -- a notification of it is our own echo
  write_fields      text[],
  sending           jsonb,                                     -- the bodies of writes on their way, an array, noted before they are sent; they stay while their outcome is unknown
  reference        text,                                       -- our reference that its Zoho record carries, or will, where it is not "<sync>:<key>": see sluice.free_reference
  gone_at          timestamptz,                                -- Zoho has the record no more
  unsure           boolean     not null default false,         -- a write had no answer: Zoho may have what `fields` does not know of
  created_at       timestamptz not null default clock_timestamp(),
  constraint link_pkey primary key (sync, key)
) with (fillfactor = 80);

create unique index link_zoho_id_key on sluice.link (sync, zoho_id) where zoho_id is not null;
-- Creates under way or in doubt: a record that has no row may be what one of them made.
create index link_unknown_idx on sluice.link (sync, key) where zoho_id is null;
create index link_reference_idx on sluice.link (sync, reference) where reference is not null;

-- Zoho records whose links were removed lately, since we deleted them or they are gone: a list that was read before, or lags, may show them still, and
-- they are no strangers that a row should be made for. Kept for a day.
create table sluice.unlinked (
  sync        text        not null,
  zoho_id     text        not null,
  unlinked_at timestamptz not null default clock_timestamp(),
  constraint unlinked_pkey primary key (sync, zoho_id)
);
create index unlinked_unlinked_at_idx on sluice.unlinked (unlinked_at);

-- Our reference for a new record of that key, where "<sync>:<key>" is another record's: one keeps the reference that it was created with when its
-- key changes, and a create under the same reference would find that record and overwrite it. Null: the usual one is free.
create function sluice.free_reference(p_sync text, p_key text) returns text
language plpgsql stable set search_path = pg_catalog, sluice, pg_temp set enable_seqscan = off set enable_bitmapscan = off as $$
declare
  usual constant text := p_sync || ':' || p_key;
  nth integer := 2;
begin
  if not exists (select from sluice.link l where l.sync = p_sync and l.reference = usual) then
    return null;
  end if;
  while exists (select from sluice.link l where l.sync = p_sync and l.reference = usual || '~' || nth)
     or exists (select from sluice.link l where l.sync = p_sync and l.key = p_key || '~' || nth) loop
    nth := nth + 1;
  end loop;
  return usual || '~' || nth;
end $$;

-- What is to be written into the application's own row (ids and status columns), left here by settle and carried out afterwards, one
-- business row a transaction: a business row may be locked by anybody for any time, and Sluice never waits for one while it
-- holds anything else. Append-only, so that a settle never waits for a carrying out that waits for the application's own triggers.
create table sluice.local_write (
  id         bigint      generated always as identity,
  sync       text        not null,
  key        text        not null,
  columns    jsonb       not null,                             -- {"<column>": "text or null"}; a newer row of the record wins
  due_at     timestamptz not null default clock_timestamp(),
  tries      integer     not null default 0,
  error      text,                                             -- why the table refused it: shown by check and status, never fails a sync
  created_at timestamptz not null default clock_timestamp(),
  constraint local_write_pkey primary key (id)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

create index local_write_due_at_idx on sluice.local_write (due_at);
create index local_write_record_idx on sluice.local_write (sync, key, id);

-- A change that a brake or a broken expression holds back until a person decides: a truncate, a mass change, a watch key that failed.
create table sluice.held_change (
  id          bigint      generated always as identity,
  sync        text        not null,
  reason      text        not null,
  operation   text        not null,
  records     bigint,                                          -- how many, where that is known
  sample      jsonb       not null default '[]',
  resolution  text,
  resolved_by text,
  resolved_at timestamptz,
  created_at  timestamptz not null default clock_timestamp(),
  constraint held_change_pkey primary key (id),
  constraint held_change_resolution_check check (resolution in ('approved', 'rejected'))
);
create index held_change_open_idx on sluice.held_change (sync) where resolution is null;
