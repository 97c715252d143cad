-- What is recorded of edits that are not applied, and the table of tokens locked down.

-- Of an attempt without a call: why there was none.
create or replace function sluice.why_no_call(p_reason text) returns text
language sql immutable set search_path = pg_catalog, sluice, pg_temp as $$
  select case p_reason
    when 'no_change' then 'no mapped value differs from what was agreed on'
    when 'not_applied' then 'an edit of a side that does not own the field was recorded, not applied'
    when 'when_false' then 'the row does not match `when` and never came to Zoho'
    when 'never_created' then 'the row is gone and never came to Zoho'
    when 'delete_ignored' then 'the row is gone and `on_delete` is "ignore"'
    when 'already_withdrawn' then 'the record was marked or voided already'
    when 'held' then 'Zoho''s side is left as it is: the row no longer matches `when`, its Zoho record was deleted there, or the row is gone and a create of it may have been lost'
    when 'braked' then 'the brake holds what would be sent until somebody decides: sluice held list'
    when 'looked_again' then 'a repeated create was looked up once more: there is one record'
    else p_reason end
$$;

-- Tokens are encrypted, and no role but the schema's owner was ever granted the table. Row-level security without a policy keeps it so where
-- somebody grants select on all tables of the schema: such a role sees no row. The owner, as whom Sluice works, is not bound by it.
alter table sluice.credential enable row level security;
revoke all on sluice.credential from public;
