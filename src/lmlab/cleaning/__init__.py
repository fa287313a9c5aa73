"""Data cleaning: from web archives to training text."""

from typing import TYPE_CHECKING

from lmlab.lazy import lazy_exports

if TYPE_CHECKING:
    from lmlab.cleaning.build import criteria
    from lmlab.cleaning.document import Criterion, Document, Removal, Step
    from lmlab.cleaning.exact_lines import exact_line_deduplication
    from lmlab.cleaning.extraction import extract_main_content, extract_text
    from lmlab.cleaning.language import identify_language
    from lmlab.cleaning.minhash_files import minhash_deduplication
    from lmlab.cleaning.pii import mask_emails, mask_ips, mask_phone_numbers
    from lmlab.cleaning.quality import gopher_quality_filter
    from lmlab.cleaning.run import clean

__all__ = [
    "Criterion",
    "Document",
    "Removal",
    "Step",
    "clean",
    "criteria",
    "exact_line_deduplication",
    "extract_main_content",
    "extract_text",
    "gopher_quality_filter",
    "identify_language",
    "mask_emails",
    "mask_ips",
    "mask_phone_numbers",
    "minhash_deduplication",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "build": ("criteria",),
        "document": ("Criterion", "Document", "Removal", "Step"),
        "exact_lines": ("exact_line_deduplication",),
        "extraction": ("extract_main_content", "extract_text"),
        "language": ("identify_language",),
        "minhash_files": ("minhash_deduplication",),
        "pii": ("mask_emails", "mask_ips", "mask_phone_numbers"),
        "quality": ("gopher_quality_filter",),
        "run": ("clean",),
    },
)
