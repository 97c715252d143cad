-- Capture: the triggers' functions, and what makes a table's own. They are called by whoever writes the table, with Sluice's rights.

-- Whether the table's columns are still those. Immutable, which it is not: so that it is asked when a statement is planned and costs nothing
-- when it runs. A plan that names the table as a constant of type regclass is made anew whenever the table's definition changes. Names and types
-- are those that a statement would meet today: the catalogue's rows are seen as of the transaction's snapshot, which may be older than the table.
create function sluice.same_layout(p_table regclass, p_layout integer) returns boolean
language plpgsql immutable set search_path = pg_catalog, sluice, pg_temp as $$
declare
  same boolean;
begin
  execute (
    select format('select array[%s] = %L::oid[]', string_agg(format('pg_typeof((null::%s).%I)::oid', p_table, a.attname), ', ' order by a.attnum), array_agg(a.atttypid order by a.attnum))
    from pg_attribute a where a.attrelid = p_table and a.attnum >= 1 and not a.attisdropped) into same;
  return same and sluice.layout(p_table) = p_layout;
exception when undefined_column or undefined_table or undefined_object or null_value_not_allowed then
  return false;
end $$;

-- Which columns the table has, whatever the transaction's snapshot shows of the catalogue.
create function sluice.columns_now(p_table oid) returns name[]
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  found name[] := '{}';
  name_now name;
begin
  for number in 1 .. 1600 loop
    name_now := (pg_identify_object_as_address('pg_class'::regclass, p_table, number)).object_names[3];
    exit when name_now is null;
    continue when name_now = format('........pg.dropped.%s........', number);
    found := found || name_now;
  end loop;
  return found;
end $$;

create function sluice.base_type(p_type oid) returns oid
language sql stable as $$
  with recursive up as (
    select t.oid, t.typtype, t.typbasetype from pg_catalog.pg_type t where t.oid = p_type
    union all select t.oid, t.typtype, t.typbasetype from up join pg_catalog.pg_type t on t.oid = up.typbasetype where up.typtype = 'd')
  select u.oid from up u where u.typtype <> 'd'
$$;

-- How a column's values become JSON.
--   plain      as PostgreSQL does it: the same in every session, and it never fails
--   text       the same, as long as JSON can hold it
--   settings   the same, but the session's settings decide how it looks
--   enum       its label
--   fragile    settings decide, and it may fail: JSON that jsonb refuses, what is too long for it, a type's own output
--   own        a type of somebody's own: what its type prints, as a text. Turned into JSON or cast to text it would call its owner's functions, with
--              Sluice's rights. jsonb_populate_record reads the text back
--   own array  of such: an array of such texts
create function sluice.image_form(p_type oid) returns text
language sql stable set search_path = pg_catalog, sluice, pg_temp as $$
  select case
    when t.oid in ('bool'::regtype, 'int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'oid'::regtype, 'uuid'::regtype, 'numeric'::regtype, 'date'::regtype, 'time'::regtype,
                   'timetz'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype, 'name'::regtype, 'inet'::regtype, 'cidr'::regtype) then 'plain'
    when t.oid in ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype) then 'text'
    when t.oid in ('float4'::regtype, 'float8'::regtype, 'interval'::regtype, 'money'::regtype) then 'settings'
    when t.typtype = 'e' then 'enum'
    when t.typcategory = 'A' and (e.oid >= 16384 or e.typrelid <> 0) then 'own array'
    when t.oid >= 16384 and t.typcategory <> 'A' or t.typrelid <> 0 then 'own'
    else 'fragile' end
  from pg_type t left join pg_type e on e.oid = sluice.base_type(t.typelem) and t.typcategory = 'A'
  where t.oid = sluice.base_type(p_type)
$$;

-- The columns to keep of a row, as an SQL expression for use under any search_path. `p_row` is what stands before the column's name.
create function sluice.image_source(p_table regclass, p_kept text[], p_row text) returns text
language sql stable set search_path = pg_catalog, sluice, pg_temp as $$
  with kept as (
    select k.name, k.n, sluice.image_form(a.atttypid) as form, format('%s.%I', p_row, k.name) as value
    from unnest(p_kept) with ordinality as k (name, n)
    left join pg_attribute a on a.attrelid = p_table and a.attname = k.name and not a.attisdropped
  ), told as (
    select k.*, format('%L, %s', k.name, case k.form
      when 'enum' then format('case when %1$s is null then null else pg_catalog.format(''%%s'', %1$s) end', k.value)
      when 'own' then format('case when pg_catalog.num_nulls(%1$s) operator(pg_catalog.=) 0 then pg_catalog.format(''%%s'', %1$s) end', k.value)
      when 'own array' then format('case when %1$s is null then null else pg_catalog.format(''%%s'', %1$s)::pg_catalog.text[] end', k.value)
      else k.value end) as pair
    from kept k
  ), halves as (
    select format('pg_catalog.jsonb_build_object(%s)', string_agg(t.pair, ', ' order by t.n)) as whole,
           format('pg_catalog.jsonb_build_object(%s)', string_agg(t.pair, ', ' order by t.n) filter (where t.form <> 'text')) as rest,
           string_agg(format('pg_catalog.octet_length(%s) operator(pg_catalog.>) %s', t.value, 240000000 / texts.n), ' or ') filter (where t.form = 'text') as too_long
    from told t, (select greatest(count(*), 1) as n from told where form = 'text') texts
  )
  -- a text that JSON cannot hold is left out, with the other texts: what lacks its key is held
  select case when h.too_long is null then h.whole else format('case when %s then %s else %s end', h.too_long, h.rest, h.whole) end from halves h
$$;

-- The same for any columns and any types, decided value by value: dear, and never fails. A value that cannot be had is left out.
create function sluice.careful_source(p_kept text[], p_row text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
  select case when cardinality(p_kept) = 0 then '''{}''::pg_catalog.jsonb'
              else format('sluice.image(%L::pg_catalog.text[], array[%s])', p_kept, (select string_agg(format('sluice.image_of(%s.%I)', p_row, k), ', ' order by n) from unnest(p_kept) with ordinality as t (k, n))) end
$$;

create function sluice.image(p_names text[], p_values jsonb[]) returns jsonb
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  return coalesce((select jsonb_object_agg(n, v) filter (where v is not null) from unnest(p_names, p_values) as t (n, v)), '{}');
exception when others then
  return '{}';
end $$;

-- Null: it cannot be had. Without a search_path, which costs more than the usual value does; so every name is qualified.
create function sluice.image_of(p_value anyelement) returns jsonb
language plpgsql stable as $$
begin
  if pg_catalog.num_nulls(p_value) operator(pg_catalog.=) 1 then
    return 'null'::pg_catalog.jsonb;
  elsif pg_catalog.pg_typeof(p_value) operator(pg_catalog.=) any ('{bool,int2,int4,int8,uuid,numeric,date,timestamp,timestamptz}'::pg_catalog.regtype[]) then
    return pg_catalog.to_jsonb(p_value);
  end if;
  return sluice.image_of_any(p_value);
end $$;

create function sluice.image_of_any(p_value anyelement) returns jsonb
language plpgsql stable set search_path = pg_catalog, sluice, pg_temp
set datestyle = 'ISO, YMD' set timezone = 'UTC' set intervalstyle = 'iso_8601' set extra_float_digits = 1 set bytea_output = 'hex' as $$
declare
  form constant text := sluice.image_form(pg_typeof(p_value));
begin
  -- several such fit into one image
  if pg_column_size(p_value) > 50000000 then
    return null;
  elsif form in ('enum', 'own') then
    return to_jsonb(format('%s', p_value));
  elsif form = 'own array' then
    return to_jsonb(format('%s', p_value)::text[]);
  end if;
  return to_jsonb(p_value);
exception when others then
  return null;
end $$;

-- Whether two values of any type differ: byte by byte, and as JSON too if they can be had as that.
create function sluice.differ_anyhow(p_one anyelement, p_other anyelement) returns boolean
language plpgsql stable as $$
declare
  one pg_catalog.jsonb;
  other pg_catalog.jsonb;
begin
  if not pg_catalog.record_image_ne(row(p_one), row(p_other)) then
    return false;
  end if;
  one := sluice.image_of(p_one);
  other := sluice.image_of(p_other);
  return one is null or other is null or one operator(pg_catalog.<>) other;
end $$;

-- An alias for rows of the table that is no column of it: `r` alone would be the column.
create function sluice.free_alias(p_columns name[]) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
  select min(repeat('r', n)) from generate_series(1, 63) n where repeat('r', n) <> all (p_columns::text[])
$$;

-- Captures a statement, or with `pair` one row's update ($1 before, $2 after), by the columns that the table has now. Makes the statement anew each
-- time, so it is for what the made functions cannot do: partitions by their own names, and columns that changed since. A column that is gone is
-- missing in what is kept, and so is a value that cannot be had: whoever takes a change that lacks its key holds it.
create function sluice.capture_statement(p_table oid, p_relation text, p_kept text[], p_operation text) returns text
language plpgsql stable set search_path = pg_catalog, sluice, pg_temp as $$
declare
  columns constant name[] := sluice.columns_now(p_table);
  kept constant text[] := array(select k from unnest(p_kept) with ordinality as t (k, n) where k = any (columns) order by n);
  r constant text := sluice.free_alias(columns);
begin
  if p_operation in ('update', 'pair') then
    return sluice.update_statement(p_table, p_relation, sluice.pairs_source(r, p_operation), sluice.careful_source(kept, '(p.r)'), sluice.careful_source(kept, '(q.r)'),
      (select format('array[%s]', string_agg(format('case when sluice.differ_anyhow((p.r).%1$I, (q.r).%1$I) then %1$L end', c), ', ')) from unnest(columns) c), null);
  end if;
  return sluice.rows_statement(p_relation, p_operation, sluice.careful_source(kept, r), r);
end $$;

create function sluice.rows_statement(p_relation text, p_operation text, p_image text, p_alias text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
  select format('insert into sluice.change (relation, operation, %s, origin) select %L, %L, %s, pg_catalog.current_setting(''sluice.origin'', true) from %s as %s',
                case p_operation when 'insert' then 'after' else 'before' end, p_relation, p_operation, p_image, case p_operation when 'insert' then 'new_rows' else 'old_rows' end, p_alias)
$$;

-- Rows of both transition tables stand in the order in which they were changed, so their numbers pair them; the key may have
-- changed. A full join, though every row has its twin: the plan is kept for the session, and one made for two rows must not
-- become a nested loop over a hundred thousand. Full joins are never nested loops.
create function sluice.pairs_source(p_alias text, p_operation text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
  select case p_operation when 'pair' then '(select 1 as number, $1 as r) p cross join (select $2 as r) q'
    else format('(select pg_catalog.row_number() over () as number, %1$s as r from old_rows as %1$s) p
                 full join (select pg_catalog.row_number() over () as number, %1$s as r from new_rows as %1$s) q on p.number operator(pg_catalog.=) q.number', p_alias) end
$$;

-- Without a layout, of a statement made for the moment: all columns are known, and a row that differs in none is left out. With one, such a row may
-- have changed in a column that is newer, so nobody knows where.
create function sluice.update_statement(p_table oid, p_relation text, p_pairs text, p_before text, p_after text, p_changed text, p_layout integer) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
  select format($body$insert into sluice.change (relation, operation, before, after, changed, layout, relid, move, origin)
      select %1$L, 'update', c.before, c.after, case when pg_catalog.cardinality(c.changed) operator(pg_catalog.>) 0 then c.changed end, %2$s, %3$s,
             case when c.before operator(pg_catalog.<>) c.after then pg_catalog.nextval('sluice.change_move') end, pg_catalog.current_setting('sluice.origin', true)
      from (select %4$s as before, %5$s as after, pg_catalog.array_remove(%6$s::pg_catalog.text[], null) as changed
            from %7$s
            where pg_catalog.record_image_ne(p.r, q.r)
            order by p.number) c%8$s$body$, p_relation, coalesce(p_layout::text, format('sluice.layout(%s)', p_table)), p_table, p_before, p_after, p_changed, p_pairs,
    case when p_layout is null then ' where pg_catalog.cardinality(c.changed) operator(pg_catalog.>) 0' end)
$$;

-- `is distinct from`, with the operator that is meant and none that the caller's search_path chooses: it is looked up here and now. The planner
-- puts it in place of the call, where it is one step instead of nine, all of which a transaction would set up anew.
create function sluice.differ(boolean, boolean) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(smallint, smallint) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(integer, integer) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(bigint, bigint) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(oid, oid) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(uuid, uuid) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(numeric, numeric) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(date, date) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(time, time) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(timestamp, timestamp) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(timestamptz, timestamptz) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(real, real) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(double precision, double precision) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(bytea, bytea) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(jsonb, jsonb) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(text, text) returns boolean language sql immutable return $1 collate "C" is distinct from $2 collate "C";
-- As texts they would be equal as well where only blanks at the end differ; making texts of them took a sixth of the capture of a small row.
create function sluice.differ(character, character) returns boolean language sql immutable return $1 collate "C" is distinct from $2 collate "C";

-- Whether a column differs, as an SQL expression: compared as values of a type for which Sluice knows how, else byte by byte, which says of some equal
-- values that they differ and never the other way round. As texts they would look as the session wants them, and their types' owners be called.
create function sluice.differs_source(p_column name, p_type oid, p_old text, p_new text) returns text
language sql stable set search_path = pg_catalog, sluice, pg_temp as $$
  select case when b.typtype = 'e' then format('(%2$s.%1$I operator(pg_catalog.<>) %3$s.%1$I) is not false and (%2$s.%1$I is not null or %3$s.%1$I is not null)', p_column, p_old, p_new)
              when b.oid in (k.typed, 'varchar'::regtype) then format('sluice.differ(%2$s.%1$I::pg_catalog.%4$I, %3$s.%1$I::pg_catalog.%4$I)', p_column, p_old, p_new, (select t.typname from pg_type t where t.oid = coalesce(k.typed, 'text'::regtype)))
              else format('pg_catalog.record_image_ne(row(%2$s.%1$I), row(%3$s.%1$I))', p_column, p_old, p_new) end
  from pg_type b left join lateral (select b.oid as typed from pg_proc p where p.pronamespace = 'sluice'::regnamespace and p.proname = 'differ' and p.proargtypes[0] = b.oid) k on true
  where b.oid = sluice.base_type(p_type)
$$;

-- Whether updates of the table are captured once a row, at half the price: not where rows move between partitions, of which a row's trigger would see a
-- delete and an insert, not where a statement changes the rows of children, and not where a column is beyond the 63rd.
create function sluice.updates_by_row(p_table oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $$
  select c.relkind = 'r' and not c.relispartition and c.relnatts <= 63 and not exists (select from pg_inherits i where i.inhparent = c.oid or i.inhrelid = c.oid) from pg_class c where c.oid = p_table
$$;

-- Whether a value that is kept may fail to become JSON, or looks as the session's settings want it.
create function sluice.kept_has(p_table oid, p_kept text[], p_forms text[]) returns boolean
language sql stable set search_path = pg_catalog, sluice, pg_temp as $$
  select exists (select from pg_attribute a where a.attrelid = p_table and a.attname = any (p_kept) and not a.attisdropped and sluice.image_form(a.atttypid) = any (p_forms))
$$;

-- The body of a table's own capture of updates, once a row: it compares columns by name instead of joining transition tables. With other columns
-- than those that it was made for, by number, name or type, the general form is taken, so that the business statement goes through; so it is when
-- nothing seems to differ and yet the rows do. What is kept may fail at becoming JSON: only where a type allows that the error is caught, before
-- anything is written, since a subtransaction that writes costs as much as a fifth of all of this.
-- Each expression costs, since a transaction sets all of them up anew. So the changed columns are bits of one number, whose sign says
-- that one of the columns to keep is among them.
-- It runs with its owner's rights under the caller's search_path, since setting that took a sixth of a small transaction. So every name in
-- it, operators included, is qualified: nothing that a caller has put into a schema of his own, or into pg_temp, is ever called.
create function sluice.capture_source(p_table regclass, p_relation text, p_kept text[]) returns text
language plpgsql stable set search_path = pg_catalog, sluice, pg_temp as $$
declare
  comparisons text;
  before text := sluice.image_source(p_table, p_kept, 'old');
  after text := sluice.image_source(p_table, p_kept, 'new');
  make_after text := '';
  make_both text := '';
  images text := '';
  short text;
begin
  select string_agg(format('case when %s then %L::bigint else 0 end', sluice.differs_source(a.attname, a.atttypid, 'old', 'new'),
           (1::bigint << (a.attnum - 1)) | case when a.attname = any (p_kept) then 1::bigint << 63 else 0 end), e'\n      operator(pg_catalog.|) ' order by a.attnum)
    into comparisons
    from pg_attribute a where a.attrelid = p_table and a.attnum between 1 and 63 and not a.attisdropped;
  if sluice.kept_has(p_table, p_kept, '{fragile,own,"own array"}') then
    make_after := format(e'begin new_image := %s;\n    exception when others then new_image := %s; end;\n    ', after, sluice.careful_source(p_kept, 'new'));
    make_both := format(e'begin old_image := %s;\n    exception when others then old_image := %s; end;\n    ', before, sluice.careful_source(p_kept, 'old')) || make_after;
    before := 'old_image';
    after := 'new_image';
    images := e'old_image pg_catalog.jsonb;\n  new_image pg_catalog.jsonb;\n';
  end if;
  -- Of these types, text and JSON say the same, whatever the settings of the caller's session.
  if cardinality(p_kept) = 1 and exists (
    select from pg_attribute a join pg_type t on t.oid = a.atttypid
    where a.attrelid = p_table and a.attname = p_kept[1] and not a.attisdropped
      and t.oid in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'uuid'::regtype, 'text'::regtype, 'varchar'::regtype, 'bool'::regtype, 'numeric'::regtype))
  then
    short := format('(relation, operation, kept, key, touched, layout, relid, origin) values (%L, %L, %L, new.%I::pg_catalog.text', p_relation, 'update', p_kept[1], p_kept[1]);
  else
    short := format('(relation, operation, after, touched, layout, relid, origin) values (%L, %L, %s', p_relation, 'update', after);
  end if;
  return format($body$
declare
  touched bigint;
  nothing boolean;                                            -- `return null` would set up an expression
  %11$s
begin
  if sluice.same_layout('%7$s'::pg_catalog.regclass, %1$s) then
    touched := %8$s;
  end if;
  if touched operator(pg_catalog.>) 0 then
    %9$sinsert into sluice.change %6$s, touched, %1$s, %7$s, pg_catalog.current_setting('sluice.origin', true));
  elsif touched operator(pg_catalog.<) 0 then
    %10$sinsert into sluice.change (relation, operation, before, after, touched, layout, relid, move, origin)
    values (%4$L, 'update', %2$s, %3$s, touched operator(pg_catalog.&) 9223372036854775807, %1$s, %7$s,
            pg_catalog.nextval('sluice.change_move'), pg_catalog.current_setting('sluice.origin', true));
  elsif pg_catalog.record_image_ne(old, new) then
    begin
      execute sluice.capture_statement(tg_relid, %4$L, %5$L, 'pair') using old, new;
    exception when others then
      insert into sluice.change (relation, operation, after, origin) values (%4$L, 'update', '{}', pg_catalog.current_setting('sluice.origin', true));
    end;
  else
    return nothing;
  end if;
  if pg_catalog.pg_sequence_last_value('sluice.change_sleeper') operator(pg_catalog.>) pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) then
    perform pg_catalog.pg_notify('sluice_change', '');
  end if;
  return nothing;
end $body$, sluice.layout(p_table), before, after, p_relation, p_kept, short, p_table::oid, comparisons, make_after, make_both, images);
end $$;

-- The body of a table's own capture of whole statements: inserts, deletes, and updates that are not captured by row. It turns only the columns to
-- keep into JSON: one that is not may hold what no JSON can. Where a kept one may too, all are tried before anything is written.
create function sluice.capture_rows_source(p_table regclass, p_relation text, p_kept text[]) returns text
language plpgsql stable set search_path = pg_catalog, sluice, pg_temp as $$
declare
  columns constant name[] := array(select a.attname from pg_attribute a where a.attrelid = p_table and a.attnum >= 1 and not a.attisdropped order by a.attnum);
  r constant text := sluice.free_alias(columns);
  image constant text := sluice.image_source(p_table, p_kept, r);
  fragile constant boolean := sluice.kept_has(p_table, p_kept, '{fragile,own,"own array"}');
  tried text := format('if sluice.same_layout(''%s''::pg_catalog.regclass, %s) then', p_table::oid, sluice.layout(p_table));
  arms text;
begin
  arms := format(e'if tg_op operator(pg_catalog.=) ''INSERT'' then\n      %s;\n    elsif tg_op operator(pg_catalog.=) ''DELETE'' then\n      %s;',
    sluice.rows_statement(p_relation, 'insert', image, r), sluice.rows_statement(p_relation, 'delete', image, r));
  if not sluice.updates_by_row(p_table) then
    arms := arms || format(e'\n    else\n      %s;', sluice.update_statement(p_table, p_relation, sluice.pairs_source(r, 'update'),
      sluice.image_source(p_table, p_kept, '(p.r)'), sluice.image_source(p_table, p_kept, '(q.r)'),
      (select format('array[%s]', string_agg(format('case when %s then %L end', sluice.differs_source(a.attname, a.atttypid, '(p.r)', '(q.r)'), a.attname), ', ' order by a.attnum))
       from pg_attribute a where a.attrelid = p_table and a.attnum >= 1 and not a.attisdropped), sluice.layout(p_table)));
  end if;
  if fragile then
    tried := format($body$fine := sluice.same_layout('%3$s'::pg_catalog.regclass, %4$s);
  if fine then
    begin
      if tg_op operator(pg_catalog.<>) 'DELETE' then
        perform pg_catalog.count(%1$s) from new_rows as %2$s;
      end if;
      if tg_op operator(pg_catalog.<>) 'INSERT' then
        perform pg_catalog.count(%1$s) from old_rows as %2$s;
      end if;
    exception when others then
      fine := false;
    end;
  end if;
  if fine then$body$, image, r, p_table::oid, sluice.layout(p_table));
  end if;
  return format($body$
declare
  fine boolean;
  nothing boolean;
begin
  %3$s
    %4$s
    end if;
  else
    begin
      execute sluice.capture_statement(tg_relid, %1$L, %2$L, pg_catalog.lower(tg_op));
    exception when others then
      insert into sluice.change (relation, operation, after, origin) values (%1$L, pg_catalog.lower(tg_op), '{}', pg_catalog.current_setting('sluice.origin', true));
    end;
  end if;
  if pg_catalog.pg_sequence_last_value('sluice.change_sleeper') operator(pg_catalog.>) pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) then
    perform pg_catalog.pg_notify('sluice_change', '');
  end if;
  return nothing;
end $body$, p_relation, p_kept, tried, arms);
end $$;

-- The general form of capture, once a statement. Names no column that is not there and calls nothing of the user's: whatever happens to the table's
-- definition and whatever its columns hold, the business statement goes through. Arguments: what to call the table (schema.name of the configured
-- one), then the columns to keep. Tables have functions of their own, below, which cost less.
create function sluice.capture() returns trigger
language plpgsql security definer set search_path = pg_catalog, sluice, pg_temp as $$
begin
  if tg_op = 'TRUNCATE' then
    insert into sluice.change (relation, operation, origin) values (tg_argv[0], 'truncate', current_setting('sluice.origin', true));
  else
    begin
      execute sluice.capture_statement(tg_relid, tg_argv[0], tg_argv[1:], lower(tg_op));
    exception when others then
      -- which row, nobody knows: held for a person
      insert into sluice.change (relation, operation, after, origin) values (tg_argv[0], lower(tg_op), '{}', current_setting('sluice.origin', true));
    end;
  end if;
  -- as wake_sleeper does; a call less in every business statement
  if pg_sequence_last_value('sluice.change_sleeper'::regclass) > date_part('epoch', clock_timestamp()) then
    perform pg_notify('sluice_change', '');
  end if;
  return null;
end $$;

create function sluice.capture_name(p_relation text) returns name
language sql immutable as $$ select ('capture_update_' || left(md5(p_relation), 16))::name $$;

create function sluice.capture_rows_name(p_relation text) returns name
language sql immutable as $$ select ('capture_rows_' || left(md5(p_relation), 16))::name $$;

-- Makes a table's own capture functions, or makes them anew. The caller holds a lock on the table. Where settings of the caller's session would
-- decide how a kept value looks, the functions have their own; a value's reader has the same.
create function sluice.make_capture(p_table regclass, p_relation text, p_kept text[]) returns void
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
declare
  settings constant text := case when sluice.kept_has(p_table, p_kept, '{settings,fragile,own,"own array"}') then
    format('set datestyle = %L set timezone = %L set intervalstyle = %L set extra_float_digits = 1 set bytea_output = %L set lc_monetary = %L',
           'ISO, YMD', 'UTC', 'iso_8601', 'hex', current_setting('lc_monetary')) else '' end;
  made record;
begin
  for made in
    select sluice.capture_rows_name(p_relation) as name, sluice.capture_rows_source(p_table, p_relation, p_kept) as source
    union all select sluice.capture_name(p_relation), sluice.capture_source(p_table, p_relation, p_kept) where sluice.updates_by_row(p_table)
  loop
    execute format('create or replace function sluice.%I() returns trigger language plpgsql security definer %s as %L', made.name, settings, made.source);
    execute format('revoke all on function sluice.%I() from public', made.name);
    execute format('comment on function sluice.%I() is %L', made.name, 'captures changes of ' || p_relation || '; made by "sluice attach"');
  end loop;
end $$;

-- Drops the functions whose triggers are gone, with their tables or by detach.
create function sluice.drop_unused_captures() returns void
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
declare
  unused name;
begin
  for unused in
    select p.proname from pg_proc p
    where p.pronamespace = 'sluice'::regnamespace and p.proname ~ '^capture_(update|rows)_' and p.prorettype = 'trigger'::regtype
      and not exists (select from pg_trigger t where t.tgfoid = p.oid)
  loop
    execute format('drop function sluice.%I()', unused);
  end loop;
end $$;

-- These came after the others were taken from everybody.
revoke all on all functions in schema sluice from public;
