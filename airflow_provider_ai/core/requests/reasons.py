"""The words that say why a record could not be sent or has no valid output. They are counted and shown; never data."""

from __future__ import annotations

from typing import Final

# Before the call: the record cannot be turned into a request.
MISSING_FIELD: Final = "missing_field"  # a column the request needs is not in the record
NULL_VALUE: Final = "null_value"  # a null where the model or the prompt can take none
NOT_FINITE: Final = "not_finite"  # NaN or infinity in a numeric tensor
NOT_ENCODABLE: Final = "not_encodable"  # no JSON form: an integer beyond 64 bits, broken text, an unknown type
WRONG_TYPE: Final = "wrong_type"  # a value that does not fit the tensor; after the call: the output tensor
ID_CLASH: Final = "id_clash"  # a column named "id" that is not the id column
UNDEFINED_VARIABLE: Final = "undefined_variable"  # the prompt uses a column the record does not have
TEMPLATE_ERROR: Final = "template_error"  # the prompt failed on this record
EMPTY_PROMPT: Final = "empty_prompt"  # nothing but white space is left to ask

# Before the call: the record must not be sent as it is.
FIELD_NOT_ALLOWED: Final = "field_not_allowed"  # a field that is not in columns
REDACTION_DATE: Final = "redaction_date"  # no date that a rule understands
REDACTION_AGE: Final = "redaction_age"  # no age in years
REDACTION_ZIP: Final = "redaction_zip"  # no ZIP code of five or nine digits
REDACTION_TYPE: Final = "redaction_type"  # a kind of value that the rule of its column does not take
REDACTION_FAILED: Final = "redaction_failed"  # the rule itself failed on it

# Before a synchronous call: its inputs are no records.
NOT_RECORDS: Final = "not_records"  # neither a mapping with text keys nor a list of such
EMPTY_INPUTS: Final = "empty_inputs"  # a list without records, or a tensor's record without fields
TOO_MANY_RECORDS: Final = "too_many_records"  # more than one for a chat completion
INVALID_ID: Final = "invalid_id"  # a record's own "id" is neither an integer nor a text
DUPLICATE_ID: Final = "duplicate_id"  # two records have the same "id"
UNEQUAL_FIELDS: Final = "unequal_fields"  # records of one tensor that have not the same fields

# After the call: the body is no answer at all.
NOT_JSON: Final = "not_json"
NOT_AN_OBJECT: Final = "not_an_object"
NO_OUTPUTS: Final = "no_outputs"  # the list the protocol promises is not there
WRONG_SHAPE: Final = "wrong_shape"  # a tensor or vector that does not fit the records sent

# After the call: one record has no valid output.
MISSING_OUTPUT: Final = "missing_output"
DUPLICATE_OUTPUT: Final = "duplicate_output"
UNKNOWN_ID: Final = "unknown_id"  # no output of its own, and the answer holds an id that was never sent
SCHEMA_MISMATCH: Final = "schema_mismatch"  # the output does not fit output_schema
RESERVED_COLUMN: Final = "reserved_column"  # an output column without a name, or one that starts with "_"
TOO_DEEP: Final = "too_deep"  # nested deeper than a checkpoint can hold
NUL_CHARACTER: Final = "nul_character"  # text that PostgreSQL refuses: it would fail its whole partition
NUMBER_TOO_LARGE: Final = "number_too_large"  # an integer that fits no BIGINT column
EMPTY: Final = "empty"  # the model answered nothing
REFUSAL: Final = "refusal"  # the model declined
LENGTH: Final = "length"  # cut off at max_tokens
CONTENT_FILTER: Final = "content_filter"
