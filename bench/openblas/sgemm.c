/*
 * OpenBLAS's side of "muster bench gemm --beside": a process that times single-precision products
 * as it is told to. The library is opened at run time, so nothing of OpenBLAS is needed to build this.
 *
 *   cc -O2 -o sgemm sgemm.c -ldl
 *   ./sgemm [LIBRARY]      Debian: apt-get install libopenblas0-serial
 *
 * It says its name in one line. Then, for each line "NN|NT|TN M N K SECONDS" of its input, it makes
 * products for that time to warm up, as many as fit into it once more, and answers with the nanoseconds of one.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 };

typedef void sgemm_fn(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda,
		      const float *b, int ldb, float beta, float *c, int ldc);

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

/* filled returns n floats, on pages of their own, none of them zero or denormal. */
static float *filled(size_t n)
{
	size_t bytes = (n * sizeof(float) + 4095) / 4096 * 4096;
	float *v = aligned_alloc(4096, bytes);

	if (!v) {
		fprintf(stderr, "sgemm: no memory for %zu bytes\n", bytes);
		exit(1);
	}
	for (size_t i = 0; i < n; i++)
		v[i] = (float)(i % 17) * 0.1f - 0.75f;
	return v;
}

/* product is C (m, n) = A B of a form, whose operands are kept while its sizes stay. */
static struct product {
	sgemm_fn *sgemm;
	char form[3];
	int m, n, k;
	float *a, *b, *c;
} p;

static void take(const char *form, int m, int n, int k)
{
	memcpy(p.form, form, sizeof p.form);
	if (p.m == m && p.n == n && p.k == k)
		return;
	free(p.a);
	free(p.b);
	free(p.c);
	p.m = m;
	p.n = n;
	p.k = k;
	p.a = filled((size_t)m * k);
	p.b = filled((size_t)k * n);
	p.c = filled((size_t)m * n);
}

/* repeat returns the seconds of one product, of as many as fit into that time. */
static double repeat(double secs)
{
	int ta = p.form[0] == 'T', tb = p.form[1] == 'T';
	double begin = now(), took;
	long calls = 0, batch = 1;

	for (;;) {
		for (long i = 0; i < batch; i++)
			p.sgemm(ROW_MAJOR, ta ? TRANS : NO_TRANS, tb ? TRANS : NO_TRANS, p.m, p.n, p.k, 1, p.a,
				ta ? p.m : p.k, p.b, tb ? p.k : p.n, 0, p.c, p.n);
		calls += batch;
		took = now() - begin;
		if (took >= secs)
			return took / calls;
		if (took < secs / 8) /* the clock is not to be asked after each small one */
			batch *= 2;
	}
}

int main(int argc, char **argv)
{
	const char *names[] = {argc > 1 ? argv[1] : "/usr/lib/x86_64-linux-gnu/openblas-serial/libopenblas.so.0",
			       "/usr/lib/aarch64-linux-gnu/openblas-serial/libopenblas.so.0"};
	void *lib = dlopen(names[0], RTLD_NOW);
	char form[3], *(*config)(void), *(*corename)(void);
	int m, n, k;
	double secs;

	if (!lib && argc < 2)
		lib = dlopen(names[1], RTLD_NOW);
	if (!lib) {
		fprintf(stderr, "sgemm: %s (Debian: apt-get install libopenblas0-serial)\n", dlerror());
		return 1;
	}
	p.sgemm = (sgemm_fn *)dlsym(lib, "cblas_sgemm");
	config = (char *(*)(void))dlsym(lib, "openblas_get_config");
	corename = (char *(*)(void))dlsym(lib, "openblas_get_corename");
	if (!p.sgemm || !config || !corename) {
		fprintf(stderr, "sgemm: not a library of OpenBLAS: %s\n", dlerror());
		return 1;
	}
	printf("%s with its kernels for %s\n", config(), corename());
	fflush(stdout);
	while (scanf("%2s %d %d %d %lf", form, &m, &n, &k, &secs) == 5) {
		take(form, m, n, k);
		repeat(secs); /* to warm up */
		printf("%.2f\n", repeat(secs) * 1e9);
		fflush(stdout);
	}
	return 0;
}
