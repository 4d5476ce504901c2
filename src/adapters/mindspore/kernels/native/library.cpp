// All bindings as one translation unit, so that the core they share is compiled once.
#include "aot.cpp"
#include "capi.cpp"
#include "inference.cpp"
