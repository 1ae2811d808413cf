// Runs all tests; a NAME as argument runs the one of that name.
#include "check.h"

int main(int argc, char **argv) {
  int n = 0;
  for (Test *t = Test::first(); t; t = t->next) {
    if (argc > 1 && strcmp(argv[1], t->name) != 0) continue;
    n++;
    int before = failures();
    t->run();
    if (failures() != before) fprintf(stderr, "FAILED %s\n", t->name);
  }
  printf("%d tests, %d failures\n", n, failures());
  return failures() != 0 || n == 0;
}
