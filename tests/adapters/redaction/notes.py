"""A small set of made-up clinical notes in which every identifier is marked: ``[[ENTITY:text]]``.

Written for this test, not taken from anybody's records, by whoever wrote the patterns: figures on it flatter them.
Marks that no pattern is meant to find (untitled names, streets, employers) are there so that they say what is missed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_MARK = re.compile(r"\[\[(\w+):(.*?)\]\]", re.DOTALL)

MARKED = (
    "Patient [[NAME:Maria Gonzalez]] (MRN [[RECORD_NUMBER:00412987]]) was admitted on [[DATE:2024-03-05]], chest pain.",
    "[[NAME:Mr. Tom O'Brien]], [[AGE_90_OR_OLDER:93]]-year-old, BP 150/90, pulse 88, lives in [[CITY:Springfield]].",
    "Seen by [[NAME:Dr. Aisha Rahman]] on [[DATE:March 3rd, 2024]]; next [[DATE:17 April 2024]], 10 mg lisinopril.",
    "Call daughter [[NAME:Ellen Park]] at [[PHONE_NUMBER:617-555-0142]] or [[EMAIL_ADDRESS:e.park@example.org]].",
    "SSN [[US_SSN:219-09-9999]]; home: [[STREET:12 Elm Street]], [[CITY:Cambridge]], MA [[ZIP_CODE:02139]].",
    "Account number: [[RECORD_NUMBER:A-8845120]]. Policy no. [[RECORD_NUMBER:77120934]]. Glucose 105 mg/dL.",
    "[[NAME:Henrik Larsen]] returned for review. He works at [[EMPLOYER:Acme Foundry]]. HbA1c 6.9 %.",
    "Telehealth from IP [[IP_ADDRESS:203.0.113.24]], portal [[URL:https://portal.example.org/u/4471]].",
    "DOB [[DATE:03/04/1931]]. She is aged [[AGE_90_OR_OLDER:92]]. Weight 61 kg, height 1.62 m, BMI 23.2.",
    "Discharged [[DATE:12/24/2023]] to the care of [[NAME:Mrs. Joan Whitfield]], tel. [[PHONE_NUMBER:(212) 555-0187]].",
    "NPI [[US_NPI:1234567893]] of the referring physician, [[NAME:Prof. Lindqvist]]. ECG: sinus rhythm, QTc 431 ms.",
    "The 41-year-old denies smoking; 2 units of alcohol a week. Creatinine 0.9, eGFR > 90. No known allergies.",
    "Medicare beneficiary [[US_MBI:1EG4-TE5-MK73]], seen at [[HOSPITAL:Saint Brigid's]] on [[DATE:Jan 9, 2024]].",
    "Pt [[NAME:Robert Chen]] paid with card [[CREDIT_CARD:4111 1111 1111 1111]]. Plan: MRI of the left knee.",
    "Labs 2024: Na 139, K 4.1, Cl 102. Dose 40 mg x 30 tablets. ICD-10 E11.9, CPT 99213, room 214, bed 3.",
    "Spoke with [[NAME:Priya]] (sister). Her number is [[PHONE_NUMBER:+1 415-555-0132]]. Next visit in 6 weeks.",
    "Device MAC [[MAC_ADDRESS:00:1B:44:11:3A:B7]] paired. Readings at 08:30 and 20:15. SpO2 97 %.",
    "Chart # [[RECORD_NUMBER:556120]]: wife [[NAME:Anna Kowalski]] agrees. Fever of 39.2 since [[DATE:1 May]].",
)


@dataclass(frozen=True, slots=True)
class Note:
    """``marks``: ``(start, end, entity)`` of each identifier in the text."""

    text: str
    marks: tuple[tuple[int, int, str], ...]


def notes() -> list[Note]:
    """The notes with their marks taken out."""
    return [_parsed(marked) for marked in MARKED]


def _parsed(marked: str) -> Note:
    text, marks, last = "", [], 0
    for found in _MARK.finditer(marked):
        text += marked[last : found.start()]
        marks.append((len(text), len(text) + len(found[2]), found[1]))
        text += found[2]
        last = found.end()
    return Note(text + marked[last:], tuple(marks))
