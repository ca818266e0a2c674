"""LinkedIn's posts, images and videos API, as far as we use it.

What it is strict about: the version headers, the author of a token, reserved characters left
unescaped, images that were never uploaded, videos that lack a piece or are worked on, copies of a
recent post.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

from tests.sandbox.platforms import metrics
from tests.sandbox.platforms.dialect import (
    Dialect,
    Pieces,
    Route,
    check_fields,
    content_type_of,
)
from tests.sandbox.platforms.values import Answer, Media, Post, Received, Refused, Token

UNIX = datetime(1970, 1, 1, tzinfo=UTC)
COMMENTARY_CHARS = 3000
RESERVED = set("\\|{}@[]()<>#*_~")
HASHTAG = re.compile(r"#(\w+)")
TEMPLATE = re.compile(r"\{hashtag\|\\#\|(\w+)\}")
MENTION = re.compile(r"@\[([^\]]+)\]\(urn:li:\w+:\w+\)")
POST_FIELDS: dict[str, type | tuple[type, ...]] = {
    "author": str,
    "commentary": str,
    "visibility": str,
    "distribution": dict,
    "lifecycleState": str,
    "isReshareDisabledByAuthor": bool,
    "content": dict,
}
COMMENT_FIELDS: dict[str, type | tuple[type, ...]] = {"actor": str, "object": str, "message": dict}
COMMENT_CHARS = 1250
VIDEO_REQUESTS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "initializeUploadRequest": (
        {"owner": str, "fileSizeBytes": int, "uploadCaptions": bool, "uploadThumbnail": bool},
        ("owner", "fileSizeBytes"),
    ),
    "finalizeUploadRequest": (
        {"video": str, "uploadToken": str, "uploadedPartIds": list},
        ("video", "uploadToken", "uploadedPartIds"),
    ),
}
PIECE_BYTES = 4 * 1024 * 1024


@dataclass(slots=True)
class _Video:
    uploads: list[str]  # the path segment of each piece, in order
    pieces: Pieces = field(default_factory=lambda: Pieces(PIECE_BYTES))
    status: str = "WAITING_UPLOAD"
    polls: int = 0  # how often it will still be PROCESSING

    @property
    def is_whole(self) -> bool:
        return [*self.pieces.lengths] == [*range(len(self.uploads))]


class LinkedInDialect(Dialect):
    name = "linkedin"
    user_id = "urn:li:person:{}"

    def __init__(self, *about: Any) -> None:
        self.sunset: set[str] = set()  # versions that are served no more
        super().__init__(*about)

    def clear(self) -> None:
        super().clear()
        self.sunset.clear()
        self._uploads: dict[str, str] = {}  # path segment to image URN
        self._owners: dict[str, str] = {}
        self._videos: dict[str, _Video] = {}

    def make_routes(self) -> list[Route]:
        cls = LinkedInDialect
        return [
            Route("POST /rest/images", "begin upload", cls.begin_upload),
            Route("POST /rest/videos", "begin upload", cls.videos),
            Route("GET /rest/videos/{urn}", "read media", cls.read_video),
            Route("PUT /dms-uploads/{upload}", "upload", cls.upload),
            Route("POST /rest/posts", "create post", cls.create_post),
            Route("GET /rest/posts", "find post", cls.find_posts),
            Route("GET /rest/posts/{urn}", "read post", cls.read_post),
            Route("POST /rest/socialActions/{urn}/comments", "create comment", cls.comment),
            Route("GET /rest/socialActions/{urn}/comments", "find comment", cls.find_comments),
            Route(
                "GET /rest/organizationalEntityShareStatistics",
                "read metrics",
                metrics.of_linkedin,
            ),
            Route("POST /oauth/v2/accessToken", "refresh", cls.refresh),
        ]

    # its words

    def failure(self, status: int, message: str, **more: Any) -> Answer:
        body = {"status": status, "message": message} | more
        return Answer(status, body, {"x-li-uuid": secrets.token_urlsafe(16)})

    def throttled(
        self, *, seconds: int = 900, daily: bool = False, scope: str = "account"
    ) -> Answer:
        who = "APPLICATION" if scope == "platform" else "APPLICATION_AND_MEMBER"
        period = "DAY " if daily else ""
        message = (
            f"Resource level throttle {who} {period}limit for calls to this resource is reached."
        )
        return self.failure(429, message, code="TOO_MANY_REQUESTS")

    def without_id(self, answer: Answer) -> Answer:
        return Answer(answer.status, {} if answer.body else None)

    def token_refused(self, token: Token | None) -> Answer:
        if token is not None and not token.revoked:
            message, code = "The token used in the request has expired", "EXPIRED_ACCESS_TOKEN"
        else:
            message, code = "The token used in the request has been revoked", "REVOKED_ACCESS_TOKEN"
        return self.failure(401, message, code=code, serviceErrorCode=65601)

    def _invalid(self, field: str, sentence: str, code: str = "INVALID_FIELD") -> Refused:
        message = f"ERROR :: {field} :: {sentence}"
        return Refused(self.failure(422, message, code=code))

    # calls

    def begin(self, received: Received) -> Token:
        if received.token is None:
            message = "Empty oauth2 access token"
            raise Refused(self.failure(401, message, code="EMPTY_TOKEN", serviceErrorCode=65600))
        token = self.authorize(received)
        version = received.headers.get("linkedin-version", "")
        if not re.fullmatch(r"\d{6}", version):
            message = "A version must be present. Please specify a version by adding a header."
            raise Refused(self.failure(400, message, code="VERSION_MISSING"))
        if version in self.sunset:
            message = f"Requested version {version}01 is not active"
            raise Refused(self.failure(426, message, code="NONEXISTENT_VERSION"))
        if received.headers.get("x-restli-protocol-version") != "2.0.0":
            raise Refused(self.failure(400, "Syntax exception in path", code="ILLEGAL_ARGUMENT"))
        return token

    def _as_author(self, token: Token, urn: object) -> str:
        if not isinstance(urn, str) or urn not in token.user_ids:
            message = f"Data Processing Exception while processing fields [/author]: {urn}"
            raise Refused(self.failure(403, message, code="ACCESS_DENIED", serviceErrorCode=100))
        return urn

    def _body(self, received: Received) -> Any:
        try:
            if received.content_type == "application/json":
                return received.json()
        except ValueError:
            pass
        raise Refused(self.failure(400, "Cannot parse the request body", code="MALFORMED"))

    def begin_upload(self, received: Received) -> Answer:
        token = self.begin(received)
        body = self._body(received)
        wrong = check_fields(body, {"initializeUploadRequest": dict}, ("initializeUploadRequest",))
        if received.params != {"action": "initializeUpload"} or wrong:
            raise Refused(self.failure(400, wrong or "unknown action", code="ILLEGAL_ARGUMENT"))
        request = body["initializeUploadRequest"]
        wrong = check_fields(request, {"owner": str}, ("owner",))
        if wrong:
            raise self._invalid("/initializeUploadRequest", wrong)
        owner = self._as_author(token, request["owner"])
        upload, image = secrets.token_hex(8), f"urn:li:image:D4{secrets.token_hex(6).upper()}"
        self._uploads[upload], self._owners[image] = image, owner
        value = {
            "uploadUrl": f"{self.base_url()}/linkedin/dms-uploads/{upload}",
            "uploadUrlExpiresAt": int((self.clock.now().timestamp() + 3600) * 1000),
            "image": image,
        }
        return Answer(200, {"value": value})

    def videos(self, received: Received) -> Answer:
        token, action = self.begin(received), received.params.get("action")
        body, name = self._body(received), f"{action}Request"
        fields = VIDEO_REQUESTS.get(name)
        wrong = check_fields(body, {name: dict}, (name,))
        if set(received.params) != {"action"} or fields is None or wrong:
            raise Refused(self.failure(400, wrong or "unknown action", code="ILLEGAL_ARGUMENT"))
        wrong = check_fields(body[name], *fields)
        if wrong:
            raise self._invalid(f"/{name}", wrong)
        if action == "initializeUpload":
            return self._begin_video(token, body[name])
        return self._end_video(received, body[name])

    def _begin_video(self, token: Token, request: dict[str, Any]) -> Answer:
        owner = self._as_author(token, request["owner"])
        urn, size = f"urn:li:video:D5{secrets.token_hex(6).upper()}", request["fileSizeBytes"]
        self._owners[urn] = owner
        pieces = []
        for first in range(0, size, PIECE_BYTES):
            upload = secrets.token_hex(8)
            self._uploads[upload] = urn
            url = f"{self.base_url()}/linkedin/dms-uploads/{upload}"
            last = min(first + PIECE_BYTES, size) - 1
            pieces.append({"uploadUrl": url, "firstByte": first, "lastByte": last})
        self._videos[urn] = _Video([one["uploadUrl"].rpartition("/")[2] for one in pieces])
        value = {
            "video": urn,
            "uploadToken": "",
            "uploadUrlsExpireAt": int((self.clock.now().timestamp() + 3600) * 1000),
            "uploadInstructions": pieces,
        }
        return Answer(200, {"value": value})

    def _upload_piece(self, upload: str, urn: str, body: bytes) -> Answer:
        video = self._videos[urn]
        whole = len(body) == PIECE_BYTES or upload == video.uploads[-1]
        if not whole or len(body) > PIECE_BYTES:
            return Answer(400, b"<html>Bad Request</html>")
        video.pieces.put(video.uploads.index(upload), body)
        return Answer(200, None, {"ETag": f"/ambry-video/signedId/{upload}"})

    def _end_video(self, received: Received, request: dict[str, Any]) -> Answer:
        video = self._videos.get(request["video"])
        etags = [f"/ambry-video/signedId/{upload}" for upload in video.uploads] if video else None
        if video is None or request["uploadedPartIds"] != etags or not video.is_whole:
            raise self._invalid("/finalizeUploadRequest", "uploadedPartIds are not all the parts")
        content = video.pieces.content()
        if content_type_of(content.head) != "video/mp4":
            video.status = "PROCESSING_FAILED"
            return Answer(200, {})
        self.hold_media(request["video"], content, "video/mp4")
        video.status, video.polls = "AVAILABLE", received.polls
        return Answer(200, {})

    def read_video(self, received: Received) -> Answer:
        self.begin(received)
        urn = unquote(received.parts["urn"])
        video = self._videos.get(urn)
        if video is None:
            raise Refused(self.failure(404, f"{urn} was not found", code="NOT_FOUND"))
        working = video.polls > 0 and video.status == "AVAILABLE"
        video.polls = max(0, video.polls - 1)
        return Answer(200, {"id": urn, "status": "PROCESSING" if working else video.status})

    def upload(self, received: Received) -> Answer:
        self.authorize(received)
        if (urn := self._uploads.get(received.parts["upload"])) in self._videos:
            return self._upload_piece(received.parts["upload"], str(urn), received.body)
        image = self._uploads.get(received.parts["upload"])
        content_type = content_type_of(received.body)
        if image is None or content_type not in ("image/jpeg", "image/png", "image/gif"):
            return Answer(400, b"<html>Bad Request</html>")
        self.hold_media(image, received.content, content_type)
        return Answer(201)

    def create_post(self, received: Received) -> Answer:
        token = self.begin(received)
        body = self._body(received)
        required = ("author", "commentary", "visibility", "distribution", "lifecycleState")
        wrong = check_fields(body, POST_FIELDS, required)
        if wrong:
            raise self._invalid("/", wrong)
        author = self._as_author(token, body["author"])
        self._check_settings(body)
        text = self._read_little_text(body["commentary"])
        media = self._shown(author, body.get("content"))
        if not text and not body.get("content"):
            raise self._invalid("/commentary", "is empty and there is no content")
        copied = self.duplicate_of(author, text, media)
        if copied is not None:
            message = f"Content is a duplicate of {copied.id}"
            raise Refused(self.failure(422, message, code="DUPLICATE_POST"))
        post = Post(
            platform=self.name,
            id=f"urn:li:share:{self.number(UNIX)}",
            account=author,
            text=text,
            at=received.at,
            media=media,
            headers=received.headers,
            fields=body,
        )
        self.posts.append(post)
        return Answer(201, None, {"x-restli-id": post.id, "x-li-uuid": secrets.token_urlsafe(16)})

    def _check_settings(self, body: dict[str, Any]) -> None:
        if body["visibility"] not in ("PUBLIC", "CONNECTIONS", "LOGGED_IN", "CONTAINER"):
            raise self._invalid("/visibility", "is not a visibility")
        if body["lifecycleState"] != "PUBLISHED":
            raise self._invalid("/lifecycleState", "is not supported here")
        distribution = body["distribution"]
        names = {
            "feedDistribution": str,
            "targetEntities": list,
            "thirdPartyDistributionChannels": list,
        }
        wrong = check_fields(distribution, names, ("feedDistribution",))
        if wrong or distribution["feedDistribution"] not in ("MAIN_FEED", "NONE"):
            raise self._invalid("/distribution", wrong or "feedDistribution is unknown")

    def _read_little_text(self, commentary: str) -> str:
        """What a reader will see. Left unescaped, a reserved character would cut the post here."""
        if len(commentary) > COMMENTARY_CHARS:
            sentence = f"exceeds the maximum length of {COMMENTARY_CHARS}"
            raise self._invalid("/commentary", sentence, "FIELD_LENGTH_TOO_LONG")
        seen, at = [], 0
        while at < len(commentary):
            for pattern, shape in ((HASHTAG, r"#\1"), (TEMPLATE, r"#\1"), (MENTION, r"\1")):
                found = pattern.match(commentary, at)
                if found:
                    seen.append(found.expand(shape))
                    at = found.end()
                    break
            else:
                if commentary[at] == "\\" and commentary[at + 1 : at + 2] in RESERVED:
                    at += 1
                elif commentary[at] in RESERVED:
                    raise self._invalid("/commentary", f"reserved character at {at}")
                seen.append(commentary[at])
                at += 1
        return "".join(seen)

    def _shown(self, author: str, content: dict[str, Any] | None) -> tuple[Media, ...]:
        if content is None:
            return ()
        wrong = check_fields(content, {"media": dict, "multiImage": dict, "article": dict})
        if wrong or len(content) != 1:
            raise self._invalid("/content", wrong or "is a union of exactly one member")
        if "article" in content:
            names = {"source": str, "title": str, "description": str, "thumbnail": str}
            wrong = check_fields(content["article"], names, ("source", "title"))
            if wrong or len(content["article"]["title"]) > 400:
                raise self._invalid("/content/article", wrong or "title is too long")
            return ()
        if "media" in content:
            return (self._image(author, content["media"], {"title": str}),)
        images = content["multiImage"].get("images")
        if not isinstance(images, list) or not 2 <= len(images) <= 20:
            raise self._invalid("/content/multiImage/images", "takes 2 to 20 images")
        return tuple(self._image(author, image, {}) for image in images)

    def _image(self, author: str, image: Any, more: dict[str, type]) -> Media:
        wrong = check_fields(image, {"id": str, "altText": str, **more}, ("id",))
        if wrong or len(image.get("altText", "")) > 4086:
            raise self._invalid("/content", wrong or "altText is too long")
        held = self.media.get(image["id"])
        video = self._videos.get(image["id"])
        ready = video is None or (video.status == "AVAILABLE" and not video.polls)
        if held is None or self._owners.get(image["id"]) != author or not ready:
            raise self._invalid("/content", "the media are not AVAILABLE to the author")
        return Media(
            id=held.id,
            content_type=held.content_type,
            size_bytes=held.size_bytes,
            sha256=held.sha256,
            alt_text=image.get("altText"),
        )

    # reading back

    def find_posts(self, received: Received) -> Answer:
        token = self.begin(received)
        if received.headers.get("x-restli-method") != "FINDER":
            raise Refused(self.failure(400, "X-RestLi-Method is missing", code="ILLEGAL_ARGUMENT"))
        query = dict(pair.split("=", 1) for pair in received.query.split("&"))
        unknown = set(query) - {"q", "author", "count", "start", "sortBy", "viewContext"}
        if unknown or query.get("q") != "author" or ":" in query.get("author", ":"):
            message = f"Query parameters not allowed: {sorted(unknown) or received.query}"
            raise Refused(self.failure(400, message, code="QUERY_PARAM_NOT_ALLOWED"))
        author = self._as_author(token, unquote(query["author"]))
        if author.startswith("urn:li:person:"):
            message = "Not enough permissions to access: partnerApiPosts.FINDER-author"
            raise Refused(self.failure(403, message, code="ACCESS_DENIED"))
        count = int(query.get("count", "10"))
        if not 1 <= count <= 100:
            raise Refused(self.failure(400, "count is out of range", code="ILLEGAL_ARGUMENT"))
        start = int(query.get("start", "0"))
        own = [self._element(post) for post in reversed(self.standalone) if post.account == author]
        paging = {"start": start, "count": count, "total": len(own), "links": []}
        return Answer(200, {"elements": own[start : start + count], "paging": paging})

    def read_post(self, received: Received) -> Answer:
        token = self.begin(received)
        urn = unquote(received.parts["urn"])
        for post in self.standalone:
            if post.id == urn and post.account in token.user_ids:
                return Answer(200, self._element(post))
        raise Refused(self.failure(404, f"{urn} was not found", code="NOT_FOUND"))

    def _element(self, post: Post) -> dict[str, Any]:
        made_at = int(post.at.timestamp() * 1000)
        commentary = re.sub(r"(?<!\\)#(\w+)", r"{hashtag|\\#|\1}", post.fields["commentary"])
        return {
            "id": post.id,
            "author": post.account,
            "commentary": commentary,
            "visibility": post.fields["visibility"],
            "lifecycleState": "PUBLISHED",
            "createdAt": made_at,
            "publishedAt": made_at,
            "lastModifiedAt": made_at,
        }

    # comments

    def comment(self, received: Received) -> Answer:
        token, post = self.begin(received), self._commented(received)
        body = self._body(received)
        wrong = check_fields(body, COMMENT_FIELDS, ("actor", "object", "message"))
        wrong = wrong or check_fields(body["message"], {"text": str, "attributes": list}, ("text",))
        if wrong or body["object"] != post.id:
            raise self._invalid("/", wrong or "object is not what is commented on")
        actor, text = self._as_author(token, body["actor"]), body["message"]["text"]
        if not text.strip() or len(text) > COMMENT_CHARS:
            sentence = f"exceeds the maximum length of {COMMENT_CHARS}" if text else "is empty"
            raise self._invalid("/message/text", sentence, "FIELD_LENGTH_TOO_LONG")
        activity, number = post.id.rpartition(":")[2], self.number(UNIX)
        comment = Post(
            platform=self.name,
            id=f"urn:li:comment:(urn:li:activity:{activity},{number})",
            account=actor,
            text=text,
            at=received.at,
            headers=received.headers,
            fields=body,
            comment_on=post.id,
        )
        self.posts.append(comment)
        return Answer(201, self._comment(comment), {"x-restli-id": str(number)})

    def find_comments(self, received: Received) -> Answer:
        token, post = self.begin(received), self._commented(received)
        if all(user_id.startswith("urn:li:person:") for user_id in token.user_ids):
            message = "Not enough permissions to access: socialActions.GET_ALL-comments"
            raise Refused(self.failure(403, message, code="ACCESS_DENIED"))
        made = [self._comment(one) for one in self.posts if one.comment_on == post.id]
        count = int(received.params.get("count", "10"))
        paging = {"start": 0, "count": count, "total": len(made), "links": []}
        return Answer(200, {"elements": made[:count], "paging": paging})

    def _commented(self, received: Received) -> Post:
        urn = unquote(received.parts["urn"])
        for post in self.standalone:
            if post.id == urn:
                return post
        raise Refused(self.failure(404, f"{urn} was not found", code="NOT_FOUND"))

    def _comment(self, comment: Post) -> dict[str, Any]:
        about = comment.id.removeprefix("urn:li:comment:(").removesuffix(")")
        activity, _, number = about.partition(",")
        made = {"actor": comment.account, "time": int(comment.at.timestamp() * 1000)}
        return {
            "actor": comment.account,
            "commentUrn": comment.id,
            "created": made,
            "id": number,
            "lastModified": made,
            "message": {"attributes": [], "text": comment.text},
            "object": activity,
        }

    def refresh(self, received: Received) -> Answer:
        form = received.form()
        names = {"grant_type", "refresh_token", "client_id", "client_secret"}
        if received.content_type != "application/x-www-form-urlencoded" or set(form) != names:
            return _grant_refused(400, "invalid_request", "A required parameter is missing")
        if (form["client_id"], form["client_secret"]) != (self.client_id, self.client_secret):
            return _grant_refused(401, "invalid_client", "Client authentication failed")
        granted = self.exchange(form["refresh_token"], rotate=False)
        if form["grant_type"] != "refresh_token" or granted is None:
            sentence = "The provided authorization grant or refresh token is invalid or expired"
            return _grant_refused(400, "invalid_grant", sentence)
        life = int(timedelta(days=365).total_seconds())
        return Answer(200, granted | {"refresh_token_expires_in": life})


def _grant_refused(status: int, error: str, description: str) -> Answer:
    return Answer(status, {"error": error, "error_description": description})
