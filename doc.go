package weft
