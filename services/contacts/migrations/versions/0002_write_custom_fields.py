"""The function by which forms writes into records within its own transaction (spec v1 §2.6).

It runs as a role that owns nothing, bypasses nothing and sees five columns of each table: row-level security holds
inside it, on the organisation of the caller's transaction.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

CREATE = """
create function contacts.write_custom_fields(organization_id bigint, kind text, record_id bigint, changes jsonb)
returns jsonb
language plpgsql
security definer
set search_path = contacts, pg_temp
as $$
declare
    before jsonb;
begin
    case kind
    when 'contact' then
        select target.custom_fields into before from contacts as target
        where target.organization_id = $1 and target.id = $3 and target.deleted_at is null
        for no key update;
        update contacts as target
        set custom_fields = jsonb_strip_nulls(target.custom_fields || $4),
            updated_at = greatest(target.updated_at, now())
        where target.organization_id = $1 and target.id = $3 and target.deleted_at is null and $4 <> '{}';
    when 'account' then
        select target.custom_fields into before from accounts as target
        where target.organization_id = $1 and target.id = $3 and target.deleted_at is null
        for no key update;
        update accounts as target
        set custom_fields = jsonb_strip_nulls(target.custom_fields || $4),
            updated_at = greatest(target.updated_at, now())
        where target.organization_id = $1 and target.id = $3 and target.deleted_at is null and $4 <> '{}';
    end case;
    return before;
end
$$
"""
SIGNATURE = "contacts.write_custom_fields(bigint, text, bigint, jsonb)"
DEFINER, CALLER = "millrace_definer", "millrace_forms"


def upgrade() -> None:
    """Creates the function, gives it to the role it runs as, and lets forms alone execute it."""
    op.execute(CREATE)
    op.execute(
        f"comment on function {SIGNATURE} is "
        "'Merges changes into a live record''s custom_fields, null removing a value; answers them as they were before, "
        "null when there is no such record. Without changes the record is left as it is.'"
    )
    op.execute(f"revoke all on function {SIGNATURE} from public")
    op.execute(f"grant usage on schema contacts to {CALLER}, {DEFINER}")
    op.execute(f"grant execute on function {SIGNATURE} to {CALLER}")
    for table in ("contacts", "accounts"):
        op.execute(f"grant select (organization_id, id, custom_fields, updated_at, deleted_at) on {table} to {DEFINER}")
        op.execute(f"grant update (custom_fields, updated_at) on {table} to {DEFINER}")
    # Whoever is to own something in a schema needs this right while being given it, and never again.
    op.execute(f"grant create on schema contacts to {DEFINER}")
    op.execute(f"alter function {SIGNATURE} owner to {DEFINER}")
    op.execute(f"revoke create on schema contacts from {DEFINER}")
