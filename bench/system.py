"""The system under measurement: `millrace up` on a temporary directory, with records to read, and two ceilings."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
from crm.contacts.v1 import contact_service_pb2 as contacts_pb
from crm.contacts.v1.contact_service_pb2_grpc import CrmContactServiceStub
from crm.fields.v1 import custom_field_service_pb2 as fields_pb
from crm.fields.v1.custom_field_service_pb2_grpc import CrmCustomFieldServiceStub
from crm.forms.v1 import form_service_pb2 as forms_pb
from crm.forms.v1.form_service_pb2_grpc import CrmFormServiceStub
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from bench.measure import Load
from deploy.local.home import Home
from deploy.local.ports import free_ports
from deploy.local.postgres import PostgresCluster
from services.runtime.settings import database_password
from services.runtime.statements import Statement

MILLRACE = Path(sys.executable).with_name("millrace")
CONTACTS = 200
"""Submissions go round these: all on one contact would wait for its row and measure that."""
OPTIONS = {"options": [{"value": "approved", "label": "Approved"}, {"value": "rejected", "label": "Rejected"}]}


class Bench:
    """A running system with contacts, two custom fields and a published form with write-back."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._home = Home(data)
        self._ceilings: list[subprocess.Popen[bytes]] = []
        self.start()
        self._echo, self._relay = (f"127.0.0.1:{port}" for port in free_ports(2))
        self._ceilings = [_ceiling("echo", self._echo), _ceiling("relay", self._relay, self._echo)]
        self._said = (("authorization", f"Bearer {self._told['token']}"),)
        self._populate()

    @property
    def pgbench(self) -> Path:
        """PostgreSQL's own load generator."""
        return PostgresCluster(self._home.postgres).binaries / "pgbench"

    @property
    def database_url(self) -> str:
        """The database as the contacts service's role."""
        role = "millrace_contacts"
        password = database_password(self._home.secret.read_text(), role)
        url = PostgresCluster(self._home.postgres).url("millrace")
        return f"{url}&user={role}&password={password}"

    def start(self) -> None:
        """Starts the system."""
        self._told = self._millrace("up", "--port", "0", "--detach")
        self._state = json.loads(self._home.state.read_text())

    def stop(self) -> None:
        """Stops the system."""
        self._millrace("down")

    def close(self) -> None:
        """Ends everything."""
        for each in self._ceilings:
            each.terminate()
            each.wait()
        self.stop()

    def memory(self) -> float:
        """Resident bytes of every process of the system, memory they share counted once."""
        supervisor = psutil.Process(self._state["supervisor"]["pid"])
        return float(sum(each.memory_full_info().pss for each in (supervisor, *supervisor.children(recursive=True))))

    def loads(self) -> list[Load]:
        """Every row of the table, ceilings first."""
        read = contacts_pb.GetContactRequest(id=self._contact)
        plain = contacts_pb.CreateContactRequest(first_name="Ada", last_name="Lovelace", email="ada@example.com")
        full = contacts_pb.CreateContactRequest()
        full.CopyFrom(plain)
        full.custom_fields.update({"kyc_status": "approved", "score": 7})
        submissions = [
            forms_pb.SubmitFormRequest(form_definition_id=self._form, contact_id=contact) for contact in self._contacts
        ]
        for each in submissions:
            each.values.update({"kyc_status": "approved"})
        fields, contacts = "/crm.fields.v1.CrmCustomFieldService", "/crm.contacts.v1.CrmContactService"
        forms = "/crm.forms.v1.CrmFormService"
        echo, relay = (each.pid for each in self._ceilings)
        get_field = fields_pb.GetCustomFieldRequest(id=self._field)
        return [
            Load("echo", self._echo, [echo], rpc="/bench.Ceiling/Call", requests=[read]),
            Load("relay", self._relay, [relay, echo], rpc="/bench.Ceiling/Call", requests=[read]),
            self._load("GetCustomField", f"{fields}/GetCustomField", [get_field], "echo", None, "fields"),
            self._load("GetContact", f"{contacts}/GetContact", [read], "echo", 0.6, "contacts"),
            self._load("CreateContact", f"{contacts}/CreateContact", [plain], "echo", 0.45, "contacts"),
            self._load(
                "CreateContact, custom fields", f"{contacts}/CreateContact", [full], "relay", 0.45, "contacts", "fields"
            ),
            self._load(
                "SubmitForm, write-back",
                f"{forms}/SubmitForm",
                submissions,
                "relay",
                None,
                "forms",
                "contacts",
                "fields",
            ),
            Load(
                "GetContact, JSON by Envoy",
                self._told["url"].removeprefix("http://"),
                self._pids("contacts", "envoy"),
                "relay",
                path=f"/api/v1/crm/contacts/{self._contact}",
                headers=dict(self._said),
            ),
        ]

    def _load(
        self, name: str, rpc: str, requests: Sequence[Message], ceiling: str, target: float | None, *serving: str
    ) -> Load:
        return Load(
            name,
            self._address(serving[0]),
            self._pids(*serving),
            ceiling,
            target,
            rpc=rpc,
            requests=requests,
            metadata=self._said,
        )

    def floors(self) -> list[tuple[str, str]]:
        """The SQL of some rpcs as pgbench scripts."""
        from services.contacts.store import contacts

        return [("GetContact", _script(contacts.GET, {"id": str(self._contact)}))]

    def _populate(self) -> None:
        fields = CrmCustomFieldServiceStub(grpc.insecure_channel(self._address("fields")))
        status = {"object_type": "contact", "key": "kyc_status", "label": "KYC", "field_type": "picklist"}
        made = fields.CreateCustomField(
            ParseDict({**status, "picklist_options": OPTIONS}, fields_pb.CreateCustomFieldRequest()),
            metadata=self._said,
        )
        score = {"object_type": "contact", "key": "score", "label": "Score", "field_type": "number"}
        fields.CreateCustomField(ParseDict(score, fields_pb.CreateCustomFieldRequest()), metadata=self._said)
        self._field = made.data.id
        contacts = CrmContactServiceStub(grpc.insecure_channel(self._address("contacts")))
        contact = contacts_pb.CreateContactRequest(first_name="Ada", last_name="Lovelace", email="ada@example.com")
        contact.custom_fields.update({"kyc_status": "approved", "score": 7})
        self._contacts = [contacts.CreateContact(contact, metadata=self._said).data.id for _ in range(CONTACTS)]
        self._contact = self._contacts[0]
        forms = CrmFormServiceStub(grpc.insecure_channel(self._address("forms")))
        asked = {"key": "kyc_status", "kind": "reference", "label": "KYC", "custom_field_definition_id": self._field}
        back = {"field_key": "kyc_status", "target": "contact", "custom_field_definition_id": self._field}
        form = {"name": "KYC", "schema": {"fields": [asked], "write_back": [back]}}
        self._form = forms.CreateForm(ParseDict(form, forms_pb.CreateFormRequest()), metadata=self._said).data.id
        forms.PublishForm(forms_pb.PublishFormRequest(id=self._form), metadata=self._said)

    def _address(self, service: str) -> str:
        return str(self._state["addresses"][service])

    def _pids(self, *names: str) -> list[int]:
        """The services' processes, and PostgreSQL's, which serves them all."""
        postmaster = PostgresCluster(self._home.postgres).pid
        assert postmaster is not None
        return [*(self._state["processes"][name]["pid"] for name in names), postmaster]

    def _millrace(self, *words: str) -> dict[str, Any]:
        done = subprocess.run(
            [MILLRACE, *words, "--data", str(self._data), "--json"], capture_output=True, text=True, check=True
        )
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {}
        return told


@contextmanager
def running() -> Iterator[Bench]:
    """A bench on a directory that is gone afterwards."""
    data = Path(tempfile.mkdtemp(prefix="millrace-bench-"))
    data.chmod(0o755)
    bench = Bench(data)
    try:
        yield bench
    finally:
        bench.close()
        shutil.rmtree(data, ignore_errors=True)


def _ceiling(kind: str, *addresses: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-m", "bench.ceilings", kind, *addresses], env=os.environ)
    with grpc.insecure_channel(addresses[0]) as channel:
        grpc.channel_ready_future(channel).result(30)
    return process


def _script(wanted: Statement[Any], values: dict[str, str]) -> str:
    """A statement within its transaction, with values in place of its parameters."""
    told = {"organization_id": "1", **values}
    sql = re.sub(r"%\((\w+)\)s", lambda found: told[found[1]], wanted.sql)
    return f"begin;\nset local app.organization_id = '1';\n{' '.join(sql.split())};\ncommit;\n"
