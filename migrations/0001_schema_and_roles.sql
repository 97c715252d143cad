-- The schema everything of Sluice's lives in, and the three roles that others are given.

create schema if not exists sluice;
revoke all on schema sluice from public;

-- Roles belong to the whole cluster: another database's migration may create the same one at the same moment, and a hosted
-- database may refuse CREATEROLE. Neither may fail the migration; `sluice check` prints the statements that are missing.
do $$
declare role_name text;
begin
  foreach role_name in array array['sluice_enqueue', 'sluice_read', 'sluice_admin'] loop
    if not exists (select from pg_catalog.pg_roles where rolname = role_name) then
      begin
        execute format('create role %I nologin', role_name);
      exception
        when duplicate_object or unique_violation then null;
        when insufficient_privilege then
          raise warning 'role % could not be created: run "create role % nologin" as a role with CREATEROLE, then "sluice migrate"', role_name, role_name;
      end;
    end if;
  end loop;
end $$;
