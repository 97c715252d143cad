-- Tokens of the web server that were made because the configuration names none: their sha256 only, so that the table opens nothing.

create table sluice.http_token (
  name       text        not null,                            -- admin
  hash       bytea       not null,
  created_at timestamptz not null default clock_timestamp(),
  constraint http_token_pkey primary key (name)
);
revoke all on table sluice.http_token from public;

do $$
declare role_name text;
begin
  foreach role_name in array array['sluice_read', 'sluice_admin'] loop
    if exists (select from pg_roles where rolname = role_name) then
      execute format('revoke all on sluice.http_token from %I', role_name);
    end if;
  end loop;
end $$;
